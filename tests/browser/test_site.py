"""The built site in headless Chromium: every page at a phone's and a desktop's width, light and dark."""

from __future__ import annotations

import pytest
import yaml
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser.visiting import THEMES, WIDTHS
from tests.listing import PAGES, ROOT

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
CHAPTERS = [name for name in PAGES if (ROOT / "book" / f"{name}.ipynb").exists()]
PAGE_BYTES = 1_500_000
LEAST = 11  # pixels

each_page = pytest.mark.parametrize("name", PAGES)
each_width = pytest.mark.parametrize("width", WIDTHS)
each_theme = pytest.mark.parametrize("theme", THEMES)


@each_theme
@each_width
@each_page
def test_a_page_loads_without_complaint_and_asks_nobody_else(visits, address, name, width, theme):
    seen = visits(name, width, theme)
    assert seen.headings == 1
    assert seen.theme == theme
    assert seen.complaints == []
    assert seen.failed == []
    assert [url for url in seen.requests if not url.startswith(address)] == []


@each_theme
@each_width
@each_page
def test_nothing_is_wider_than_the_window_or_cut_off(visits, name, width, theme):
    """Outputs and formulas included; only source code may scroll sideways in its box."""
    seen = visits(name, width, theme)
    assert not seen.scrolls
    assert seen.wide == []
    assert seen.clipped == []


@each_theme
@each_page
def test_axe_finds_nothing_serious(visits, name, theme):
    """Faint text in either theme; nameless pictures and controls, lists that are none, boxes only a mouse scrolls."""
    assert visits(name, "phone", theme).violations == []


@each_width
@each_page
def test_text_of_figures_and_tables_can_be_read(visits, name, width):
    small = [(size, text[:60]) for size, text in visits(name, width, "light").sizes if size < LEAST - 0.05]
    assert small == []


@each_page
def test_pictures_have_words_and_load(visits, name):
    seen = visits(name, "desktop", "light")
    assert seen.wordless == []
    assert seen.broken == []
    assert seen.nameless == 0


@each_page
def test_formulas_are_drawn(visits, name):
    seen = visits(name, "desktop", "light")
    assert seen.undrawn == 0
    assert seen.wrong == 0
    assert seen.apart == []  # a formula in a sentence, kept with its comma, begins no line


@each_page
def test_a_page_is_light(visits, name, capsys):
    transferred = visits(name, "phone", "light").transferred
    with capsys.disabled():
        print(f"\n{name}: {transferred / 1e3:,.0f} kB", end="")
    assert transferred <= PAGE_BYTES


@each_page
def test_only_pages_with_formulas_load_what_draws_them(visits, name):
    seen = visits(name, "desktop", "light")
    assert bool(seen.drawers) == bool(seen.formulas)


@each_page
def test_every_mention_of_a_figure_is_a_link(visits, name):
    assert visits(name, "desktop", "light").dead == []


@each_page
def test_links_inside_the_site_lead_somewhere(visits, address, site, name):
    seen = visits(name, "desktop", "light")
    ours = [link.removeprefix(address) for link in seen.links if link.startswith(address)]
    inside = {link.partition("#")[0].lstrip("/") for link in ours}
    assert [link for link in inside if link and not (site / link).exists()] == []
    assert seen.lost == []


@each_width
def test_there_is_one_way_to_search(visits, driver, width):
    """One button or field in sight opens the one search dialog; no second box."""
    visits.open("index.html", width)
    assert len(driver.find_elements(By.CSS_SELECTOR, "input[type=search]")) == 1
    ways = ".search-button, .search-button-field, .search-button__button, input[type=search]"
    inside = "return arguments[0].offsetParent && arguments[0].getBoundingClientRect().left >= 0"
    assert sum(bool(driver.execute_script(inside, way)) for way in driver.find_elements(By.CSS_SELECTOR, ways)) == 1


def test_search_finds_a_page(visits, driver):
    visits.open("search.html?q=perturbation", "desktop")
    driver.implicitly_wait(5)
    try:
        assert driver.find_elements(By.CSS_SELECTOR, "#search-results li")
    finally:
        driver.implicitly_wait(0)


@pytest.mark.parametrize("name", CHAPTERS)
def test_sliders_work_without_a_kernel(visits, driver, name):
    """The arrow keys move a slider; it shows one frame at a time, the one of its value, and says so in words."""
    visits.open(f"{name}.html", "phone")
    for slider in driver.find_elements(By.CSS_SELECTOR, "figure input[type=range]"):
        figure = slider.find_element(By.XPATH, "ancestor::figure")
        slider.send_keys(Keys.HOME)
        states = [state(driver, figure, slider)]
        for _ in range(int(slider.get_attribute("max"))):
            slider.send_keys(Keys.ARROW_RIGHT)
            states.append(state(driver, figure, slider))
        assert [(value, shown) for value, shown, _ in states] == [(at, [at]) for at in range(len(states))]
        assert len({words for *_, words in states}) == len(states)


EVERY_SOUND = """const done = arguments[0];
(async () => {
  const failed = [], buttons = [...document.querySelectorAll("button.tk-play")];
  if (buttons.length < 20) failed.push(`only ${buttons.length} sounds`);
  for (const button of buttons) {
    try {
      tkSound.src = button.dataset.sound;
      await tkSound.play();
      const seconds = tkSound.duration;
      if (!(seconds > 0.03 && seconds < 10)) failed.push(`${button.ariaLabel}: ${seconds} s`);
    } catch (error) { failed.push(`${button.ariaLabel}: ${error}`); }
    tkSound.pause();
  }
  done(failed);
})();"""


def test_sounds_play(visits, driver):
    """A key on a button plays its sound and stops the one before; every sound of the page is one, and none is long."""
    visits.open("07_sonification.html", "phone")
    buttons = driver.find_elements(By.CSS_SELECTOR, "figure button.tk-play")
    first, second = [button for button in buttons if button.is_displayed()][:2]
    for pressed, other in ((first, second), (second, first)):
        pressed.send_keys(Keys.ENTER)
        assert pressed.get_attribute("aria-pressed") == "true"
        assert other.get_attribute("aria-pressed") == "false"
        playing = "return tkSound.play().then(() => [tkSound.error === null, tkSound.duration])"
        fine, seconds = driver.execute_script(playing)
        assert fine
        assert 0.03 < seconds < 10
    assert all(button.get_attribute("aria-label").startswith("Play: ") for button in buttons)
    assert driver.find_elements(By.CSS_SELECTOR, "dialog.tk-large") == []  # a button is no picture to be enlarged
    driver.set_script_timeout(300)
    failed = driver.execute_async_script(EVERY_SOUND)
    assert failed == []


def state(driver, figure, slider) -> tuple[int, list[int], str]:
    """A slider's value, the frames in sight, and what its line says."""
    frames = "return [...arguments[0].querySelectorAll('.tk-frame')].flatMap((f, i) => f.offsetParent ? [i] : [])"
    words = figure.find_element(By.TAG_NAME, "output").text
    return int(slider.get_property("value")), driver.execute_script(frames, figure), words


def test_a_figure_grows_at_a_tap_and_closes_by_the_keyboard(visits, driver):
    visits.open("01_defenses.html", "phone")
    button = driver.find_element(By.CSS_SELECTOR, "figure .tk-enlarge")
    button.send_keys(Keys.ENTER)
    dialog = driver.find_element(By.CSS_SELECTOR, "dialog.tk-large")
    assert dialog.get_attribute("open") is not None
    assert dialog.get_attribute("aria-label") == "Figure 1.1"
    dialog.find_element(By.TAG_NAME, "button").send_keys(Keys.ESCAPE)
    assert driver.find_elements(By.CSS_SELECTOR, "dialog.tk-large") == []


def test_the_folds_of_the_list_of_pages_say_what_they_unfold(visits, driver):
    visits.open("index.html", "desktop")
    folds = driver.find_elements(By.CSS_SELECTOR, ".bd-sidebar-primary details > summary")
    assert [fold.get_attribute("aria-label") for fold in folds] == ["Pages under The package"]


def chosen(driver) -> list[str]:
    """The ids of the rows of the ledger that are in sight, in their order."""
    rows = "return [...document.querySelectorAll('.tk-claims tbody tr')].filter(row => !row.hidden).map(row => row.id)"
    return driver.execute_script(rows)


def attributes(driver, name: str) -> list[str]:
    script = "return arguments[0].map(id => document.getElementById(id).dataset[arguments[1]])"
    return driver.execute_script(script, chosen(driver), name)


@each_width
def test_the_ledger_filters_and_sorts_by_the_keyboard(visits, driver, width):
    visits.open("ledger.html", width)
    everything = chosen(driver)
    verdict = driver.find_element(By.NAME, "verdict")
    verdict.send_keys(Keys.ARROW_DOWN)
    assert set(attributes(driver, "verdict")) == {verdict.get_property("value")} == {"HOLDS"}
    chapter = driver.find_element(By.NAME, "chapter")
    chapter.send_keys("2")
    assert set(attributes(driver, "chapter")) == {"2"}
    assert driver.find_element(By.CSS_SELECTOR, ".tk-filters output").text.startswith(f"{len(chosen(driver))} of ")
    driver.find_element(By.CSS_SELECTOR, ".tk-filters button").send_keys(Keys.ENTER)
    driver.find_element(By.NAME, "words").send_keys("catastrophic")
    assert "claim-fast-collapse" in chosen(driver)
    assert len(chosen(driver)) < len(everything) / 5
    driver.find_element(By.CSS_SELECTOR, ".tk-filters button").send_keys(Keys.ENTER)
    driver.find_element(By.NAME, "words").send_keys("interval")  # which most rows have in their details
    sentence = "return document.getElementById(arguments[0]).querySelector('summary').textContent"
    said = ["interval" in driver.execute_script(sentence, one) for one in chosen(driver)]
    assert said == sorted(said, reverse=True)
    assert said[0]
    driver.find_element(By.CSS_SELECTOR, ".tk-filters button").send_keys(Keys.ENTER)
    driver.find_element(By.NAME, "sort").send_keys(Keys.ARROW_DOWN)
    ranks = attributes(driver, "verdict")
    assert ranks == sorted(ranks, key=["HOLDS", "IN_DIRECTION", "FAILS", "INCONCLUSIVE", "NOT_RUN"].index)
    assert sorted(chosen(driver)) == sorted(everything)


def test_a_link_to_a_claim_opens_it(visits, driver):
    visits.open("ledger.html#claim-fast-collapse", "phone")
    opened = "return [...document.querySelectorAll('.tk-claims details[open]')].map(one => one.closest('tr').id)"
    assert driver.execute_script(opened) == ["claim-fast-collapse"]
    top = "return document.getElementById('claim-fast-collapse').getBoundingClientRect().top"
    assert 0 <= driver.execute_script(top) < 400


def test_the_ledger_works_from_a_file(driver, site):
    driver.get((site / "ledger.html").as_uri())
    driver.find_element(By.NAME, "chapter").send_keys("3")
    assert set(attributes(driver, "chapter")) == {"3"}


@pytest.mark.parametrize("name", CHAPTERS or ["index"])
def test_launch_buttons_appear_only_when_published(visits, name):
    published = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    assert bool(visits(name, "desktop", "light").launches) == bool(published and CHAPTERS)
