"""What the site makes of a notebook's figures and code: SVG in the page, anchors, links, folded setup."""

from __future__ import annotations

import base64
import re
from types import SimpleNamespace

import pytest
from docutils import nodes
from docutils.utils import new_document

from tools import site_figures, site_meta, site_reading
from tools.build_notebooks import ROOT, SETUP
from tools.figure_sources import functions_of, home

SVG = '<svg viewBox="0 0 4 4"><text>é &lt; 1</text></svg>'


def figure(number: str, caption: str = "What is seen.") -> str:
    uri = "data:image/svg+xml;base64," + base64.b64encode(SVG.encode()).decode()
    image = f'<img class="tk-wide" src="{uri}" alt="a &quot;word&quot;" style="width:100%">'
    label = f"<strong>Figure {number}.</strong>"
    return f'<figure class="tk-figure" style="margin:0">{image}<figcaption>{label} {caption}</figcaption></figure>'


def page(*html: str, text: str = "") -> nodes.document:
    document = new_document("page")
    for piece in html:
        raw = nodes.raw("", "", format="html")
        raw += nodes.Text(piece)
        document += raw
    document += nodes.paragraph("", text)
    return document


@pytest.fixture
def app():
    env = SimpleNamespace(docname="01_defenses", tk_figures={"3.2": "03_regularization"})
    return SimpleNamespace(env=env, builder=SimpleNamespace(get_relative_uri=lambda here, there: f"{there}.html"))


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(site_figures, "LOG", SimpleNamespace(warning=lambda text, *a, **_: said.append(text % a)))
    return said


def html_of(document: nodes.document) -> str:
    return "".join(raw.astext() for raw in document.findall(nodes.raw))


def links(document: nodes.document) -> list[tuple[str, str]]:
    return [(found.astext(), found["refuri"]) for found in document.findall(nodes.reference)]


def test_an_svg_becomes_part_of_the_page_under_its_words(app):
    document = page(figure("1.1"))
    site_figures.collect(app, document)
    found = html_of(document)
    assert '<svg class="tk-wide" role="img" aria-label="a &quot;word&quot;" viewBox="0 0 4 4">' in found
    assert "<text>é &lt; 1</text>" in found
    assert "<img" not in found


def test_every_figure_gets_the_anchor_of_its_own_number(app):
    document = page(figure("1.1") + figure("1.2"), figure("1.10"))
    site_figures.collect(app, document)
    assert html_of(document).count('<figure id="figure-1-') == 3
    assert html_of(document).index('id="figure-1-1"') < html_of(document).index("Figure 1.1.")
    assert {"1.1", "1.2", "1.10", "3.2"} == set(app.env.tk_figures)


def test_a_number_given_twice_is_a_warning(app, warnings):
    site_figures.collect(app, page(figure("3.2")))
    site_figures.collect(app, page(figure("1.4") + figure("1.4")))
    assert [text[:24] for text in warnings] == ["Figure 3.2 is there twic", *["Figure 1.4 is there twic"] * 2]


def test_mentions_in_the_text_are_links_on_this_page_and_to_others(app, warnings):
    document = page(figure("1.1"), figure("1.2"), text="Compare Figures 1.1 and 1.2 with Figure 3.2.")
    site_figures.collect(app, document)
    site_figures.link(app, document, "01_defenses")
    assert links(document) == [
        ("Figures 1.1", "#figure-1-1"),
        ("1.2", "#figure-1-2"),
        ("Figure 3.2", "03_regularization.html#figure-3-2"),
    ]
    assert document.children[-1].astext() == "Compare Figures 1.1 and 1.2 with Figure 3.2."
    assert warnings == []


def test_mentions_in_a_caption_are_links_and_its_own_label_is_none(app):
    document = page(figure("1.1", "As in Figure 3.2."))
    site_figures.collect(app, document)
    site_figures.link(app, document, "01_defenses")
    assert '<strong>Figure 1.1.</strong> As in <a class="tk-mention" href="03_' in html_of(document)
    assert 'figure-3-2">Figure 3.2</a>.' in html_of(document)


def test_a_mention_of_nothing_is_a_warning_and_stays_text(app, warnings):
    document = page(text="See Figure 9.9.")
    site_figures.link(app, document, "01_defenses")
    assert links(document) == []
    assert document.astext() == "See Figure 9.9."
    assert len(warnings) == 1
    assert "9.9" in warnings[0]


def test_code_and_titles_are_left_alone(app, warnings):
    document = new_document("page")
    document += nodes.literal("", "Figure 3.2")
    document += nodes.title("", "Figure 3.2")
    site_figures.link(app, document, "01_defenses")
    assert links(document) == []


def test_a_page_that_is_read_again_forgets_its_figures(app):
    site_figures.collect(app, page(figure("1.1")))
    site_figures.forget(app, app.env, "01_defenses")
    assert app.env.tk_figures == {"3.2": "03_regularization"}


@pytest.mark.parametrize("repository", ["", "https://github.com/owner/name"])
def test_the_setup_cell_is_shown_without_its_guard(repository):
    cell = nodes.container(classes=["cell", "tag_setup"])
    cell += nodes.literal_block("", SETUP.format(repository=repository))
    document = new_document("page")
    document += cell
    site_reading.shorten_setup(None, document)
    shown = cell.astext()
    assert "repository" not in shown
    assert "ImportError" not in shown
    assert "pip" not in shown
    assert shown.endswith("\n\nimport thesis_kit as tk\n\nsession = tk.setup(PROFILE)")
    assert cell["hide_mode"] == "input"


@pytest.mark.parametrize(
    ("paragraphs", "said"),
    [
        (["One sentence\nover two lines."], "One sentence over two lines."),
        (["The question?", "An answer of some length."], "The question? An answer of some length."),
        (["A sentence that ends here. " * 4 + "And another that goes on and on, word after word after word" * 3],
         ("A sentence that ends here. " * 4).strip()),
        (["word " * 100], "word " * 40 + "…"),
    ],
)  # fmt: skip
def test_a_page_is_described_by_its_first_sentences(paragraphs, said):
    document = new_document("page")
    for text in paragraphs:
        document += nodes.paragraph("", text)
    assert site_meta.described(document) == said
    assert len(said) <= site_meta.LETTERS + 2


@pytest.mark.parametrize("base", ["", "https://book.example/"])
def test_only_a_site_that_knows_its_address_names_a_picture(base):
    app = SimpleNamespace(config=SimpleNamespace(html_baseurl=base, html_title='The "book"'))
    context = {"title": "A <em>page</em>"}
    document = page(text="What it says.")
    site_meta.add_meta(app, "a/page", "page.html", context, document)
    assert '<meta name="description" content="What it says.">' in context["metatags"]
    assert '<meta property="og:title" content="A page">' in context["metatags"]
    assert 'content="The &quot;book&quot;"' in context["metatags"]
    assert ("og:image" in context["metatags"]) == bool(base)
    assert ('content="https://book.example/a/page.html"' in context["metatags"]) == bool(base)


# From a picture to its function


def test_under_the_code_of_a_figure_stands_what_draws_it(tmp_path):
    (tmp_path / "src").mkdir()
    source = "from thesis_kit.show import diagrams as d\nd.free('Figure 1.1')\n"
    (tmp_path / "src" / "01_defenses.py").write_text(source, encoding="utf-8")
    code, html = nodes.literal_block("", "d.free('Figure 1.1')"), nodes.raw("", figure("1.1"), format="html")
    cell = nodes.container("", nodes.container("", code), nodes.container("", html), classes=["cell"])
    options: dict[str, str] = {}
    app = SimpleNamespace(srcdir=tmp_path, env=SimpleNamespace(docname="01_defenses"),
                          config=SimpleNamespace(html_theme_options=options))  # fmt: skip
    site_figures.name_functions(app, cell)
    (said,) = cell.findall(nodes.paragraph)
    assert said.parent is code.parent
    assert re.fullmatch(r"Figure 1\.1 is drawn by free in thesis_kit/show/diagrams\.py:\d+", said.astext())
    assert not list(cell.findall(nodes.reference))
    options |= {"repository_url": "https://github.com/a/b", "repository_branch": "main"}
    site_figures.name_the_function(app, html, "1.1")
    (link,) = cell.findall(nodes.reference)
    assert link["refuri"].startswith("https://github.com/a/b/blob/main/thesis_kit/show/diagrams.py#L")


@pytest.mark.parametrize("source", sorted((ROOT / "book" / "src").glob("*.py")), ids=lambda path: path.stem)
def test_every_figure_of_the_book_is_drawn_by_a_function_of_the_package(source):
    text = source.read_text(encoding="utf-8")
    labels = set(re.findall(r"[\"'](Figure \d+(?:\.\d+)?)[\"']", text))
    found = functions_of(text)
    assert set(found) == labels
    assert {label: function for label, function in found.items() if home(function) is None} == {}
    for function in found.values():
        file, line = home(function)
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        assert lines[line - 1].startswith(f"def {function.rpartition('.')[2]}(")


def test_a_name_that_is_passed_on_is_followed_home():
    assert home("thesis_kit.attacks.pgd")[0] == "thesis_kit/attacks/pgd.py"
    assert home("thesis_kit.show.diagrams.nothing") is None
    assert home("matplotlib.pyplot.plot") is None
    text = "def mine(label): pass\nmine(label='Figure 9.1')\n"
    assert functions_of(text) == {"Figure 9.1": "mine"}
    assert home("mine") is None
