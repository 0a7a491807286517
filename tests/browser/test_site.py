"""The built site in headless Chromium, at a desktop's and a phone's width, light and dark."""

from __future__ import annotations

import pytest
import yaml

from tools.build_notebooks import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
WIDTHS = {"desktop": 1280, "phone": 390}
PAGE_BYTES = 1_500_000

# Elements of the text that reach beyond the window, unless something around them scrolls or cuts them off.
WIDE = """[...document.querySelectorAll("article *")].filter(element => {
  const box = element.getBoundingClientRect();
  if (box.width === 0 || box.height === 0 || box.right <= document.documentElement.clientWidth + 1) return false;
  for (let around = element.parentElement; around && around.tagName !== "ARTICLE"; around = around.parentElement) {
    if (getComputedStyle(around).overflowX !== "visible") return false;
  }
  return true;
}).map(element => element.tagName + "." + element.className + ": " + element.textContent.trim().slice(0, 60))"""

# Text whose contrast with the color behind it is under WCAG's 4.5 : 1.
FAINT = """(() => {
  const parse = color => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
    v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  ).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("article p, article li, article td, article th, article h1,"
      + "article h2, article h3, article figcaption, article figure output, article dd, article dt, article summary")) {
    if (!element.textContent.trim() || !element.offsetParent) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push(ratio.toFixed(2) + " " + element.textContent.trim().slice(0, 60));
  }
  return faint;
})()"""

each_page = pytest.mark.parametrize("name", PAGES)
each_width = pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)


@each_width
@each_page
def test_a_page_loads_without_complaint_and_asks_nobody_else(page, address, name, width):
    page.open(f"{address}/{name}.html", width=width)
    assert page.evaluate("document.querySelectorAll('article h1').length") == 1
    assert page.complaints() == []
    assert [url for url in page.requested() if not url.startswith(address)] == []


@each_width
@each_page
def test_nothing_is_wider_than_the_window(page, address, name, width):
    page.open(f"{address}/{name}.html", width=width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(WIDE) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@each_page
def test_text_stands_out_in_both_themes(page, address, name, theme):
    page.open(f"{address}/{name}.html", width=WIDTHS["desktop"], theme=theme)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.evaluate(FAINT) == []


@each_page
def test_pictures_have_words_and_load(page, address, name):
    page.open(f"{address}/{name}.html", width=WIDTHS["desktop"])
    pictures = "[...document.querySelectorAll('article img')]"
    assert page.evaluate(f"{pictures}.filter(image => !image.alt.trim()).map(image => image.src.slice(0, 80))") == []
    broken = f"{pictures}.filter(image => image.complete && !image.naturalWidth).map(image => image.alt)"
    assert page.evaluate(broken) == []


@each_page
def test_equations_are_drawn(page, address, name):
    page.open(f"{address}/{name}.html", width=WIDTHS["desktop"])
    undrawn = "[...document.querySelectorAll('article .math')].filter(m => !m.querySelector('mjx-container')).length"
    assert page.evaluate(undrawn) == 0
    assert page.evaluate("document.querySelectorAll('mjx-merror').length") == 0


@each_page
def test_a_page_is_light(page, address, name):
    page.open(f"{address}/{name}.html", width=WIDTHS["phone"])
    assert page.transferred() <= PAGE_BYTES


@each_page
def test_links_inside_the_site_lead_somewhere(page, address, site, name):
    page.open(f"{address}/{name}.html", width=WIDTHS["desktop"])
    links = page.evaluate(
        "[...document.querySelectorAll('a[href]')].map(a => a.href).filter(h => h.startsWith('http'))"
    )
    inside = {link.removeprefix(address).partition("#")[0].lstrip("/") for link in links if link.startswith(address)}
    assert [link for link in inside if link and not (site / link).exists()] == []
    here = "[...document.querySelectorAll('article a[href^=\"#\"]')].map(a => decodeURIComponent(a.hash.slice(1)))"
    assert page.evaluate(f"{here}.filter(id => id && !document.getElementById(id))") == []


@each_width
def test_there_is_one_way_to_search(page, address, width):
    """One button or field in sight opens the one search dialog; no second box."""
    page.open(f"{address}/index.html", width=width)
    assert page.evaluate("document.querySelectorAll('input[type=search]').length") == 1
    ways = "'.search-button, .search-button-field, .search-button__button, input[type=search]'"
    visible = (
        f"[...document.querySelectorAll({ways})].filter(e => e.offsetParent && e.getBoundingClientRect().left >= 0)"
    )
    assert page.evaluate(f"{visible}.length") == 1


def test_search_finds_a_page(page, address):
    page.open(f"{address}/search.html?q=perturbation", width=WIDTHS["desktop"])
    page.evaluate("new Promise(done => setTimeout(() => done(true), 1500))")
    assert page.evaluate("document.querySelectorAll('#search-results li').length") > 0


@each_page
def test_sliders_work_without_a_kernel(page, address, name):
    """Each slider shows one picture at a time, the one that belongs to its value, and says so in words."""
    page.open(f"{address}/{name}.html", width=WIDTHS["phone"])
    moved = page.evaluate("""[...document.querySelectorAll("figure input[type=range]")].map(slider => {
      const figure = slider.closest("figure");
      const seen = () => [...figure.querySelectorAll("img")].map(i => getComputedStyle(i).display !== "none");
      const states = [];
      for (let value = Number(slider.min); value <= Number(slider.max); value++) {
        slider.value = value;
        slider.dispatchEvent(new Event("input", {bubbles: true}));
        const words = figure.querySelector("output").textContent;
        states.push([value, seen().indexOf(true), seen().filter(Boolean).length, words]);
      }
      return states;
    })""")
    for states in moved:
        assert all(value == shown and count == 1 for value, shown, count, _ in states)
        assert len({words for *_, words in states}) == len(states)


def test_launch_buttons_appear_only_when_published(page, address):
    published = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    chapters = [name for name in PAGES if (ROOT / "book" / f"{name}.ipynb").exists()]
    for name in chapters or ["index"]:
        page.open(f"{address}/{name}.html", width=WIDTHS["desktop"])
        colab = page.evaluate("[...document.querySelectorAll('a')].filter(a => a.href.includes('colab')).length")
        assert (colab > 0) == bool(published and chapters)
