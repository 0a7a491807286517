"""A Sphinx extension that gives the book's figures what a page can give them and a notebook cannot.

An SVG that a notebook carries as an image becomes part of the page, so that its text can be read and its colors follow
the theme. Every figure gets an anchor made of its number, and every mention of a figure, in the text or in a caption,
becomes a link to it. A mention of a figure that no page has is a warning, and so fails the build. Under the code of a
figure stands which function draws it, and where. Rows of the ledger, which are HTML, are targets that other pages can
link to.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

from docutils import nodes
from sphinx.util import logging

from tools.figure_sources import drawn_by

LOG = logging.getLogger(__name__)
NUMBER = r"\d+\.\d+"
MENTION = re.compile(rf"\bFigures?\s{NUMBER}(?:(?:, | and |, and | to |–){NUMBER})*")
LABEL = rf"(?:(?!</figure>).)*?<strong>Figure ({NUMBER})\.</strong>"
FIGURE = re.compile(rf'<figure class="tk-figure"(?={LABEL})', re.DOTALL)
IMAGE = re.compile(r'<img class="(tk-\w+)" src="data:image/svg\+xml;base64,([\w+/=]+)" alt="([^"]*)"[^>]*>')
TARGET = re.compile(r'<tr role="row" id="(claim-[\w.-]+)"')
WORDS = re.compile(r"(<[^>]*>)")
QUIET = (nodes.reference, nodes.title, nodes.literal, nodes.literal_block, nodes.raw)


def anchor(number: str) -> str:
    """The id of a figure on its page: "figure-1-2"."""
    return "figure-" + number.replace(".", "-")


def inlined(text: str) -> str:
    """HTML with each SVG image as the element itself, under the same words."""

    def inline(found: re.Match) -> str:
        svg = base64.b64decode(found[2]).decode()
        return svg.replace("<svg ", f'<svg class="{found[1]}" role="img" aria-label="{found[3]}" ', 1)

    return IMAGE.sub(inline, text)


def collect(app, doctree):
    """Note which page has which figure, and give each its anchor."""
    figures = figures_of(app.env)
    docname = app.env.docname
    for raw in doctree.findall(nodes.raw):
        if "tk-figure" in raw.astext():
            text = inlined(raw.astext())
            numbers = FIGURE.findall(text)
            for number in numbers:
                if figures.setdefault(number, docname) != docname or numbers.count(number) > 1:
                    LOG.warning("Figure %s is there twice: number it anew", number, location=docname)
            text = FIGURE.sub(lambda found: f'<figure id="{anchor(found[1])}" class="tk-figure"', text)
            rewrite(raw, text)


def name_functions(app, doctree):
    """Say under the code of every figure which function draws it."""
    for raw in list(doctree.findall(nodes.raw)):
        if "tk-figure" in raw.astext():
            for number in FIGURE.findall(raw.astext()):
                name_the_function(app, raw, number)


def name_the_function(app, raw, number: str) -> None:
    """A line under the code of a figure's cell; with a link, where the book is published."""
    source = Path(app.srcdir) / "src" / f"{app.env.docname}.py"
    found = drawn_by(source.read_text(encoding="utf-8"), f"Figure {number}") if source.exists() else None
    cell = next((one for one in parents(raw) if "cell" in one.get("classes", [])), None)
    code = next(iter(cell.findall(nodes.literal_block)), None) if cell is not None else None
    if found is None or code is None:
        return
    name, file, line = found
    words = nodes.literal("", f"{file}:{line}")
    published = (app.config.html_theme_options.get("repository_url") or "").rstrip("/")
    branch = app.config.html_theme_options.get("repository_branch") or "main"
    where = nodes.reference("", "", words, refuri=f"{published}/blob/{branch}/{file}#L{line}") if published else words
    drawn = nodes.paragraph("", "", nodes.Text(f"Figure {number} is drawn by "), classes=["tk-source"])
    drawn += [nodes.literal("", name), nodes.Text(" in "), where]
    code.parent += drawn


def name_targets(app, doctree):
    """Let pages link to rows of the ledger by their ids, as to any other target."""
    labels = app.env.get_domain("std")
    for raw in doctree.findall(nodes.raw):
        for name in TARGET.findall(raw.astext()):
            labels.anonlabels[name] = (app.env.docname, name)
            labels.labels[name] = (app.env.docname, name, name)


def rewrite(node, text: str) -> None:
    node.clear()
    node += nodes.Text(text)


def figures_of(env) -> dict[str, str]:
    """Number of a figure → the page that has it."""
    if not hasattr(env, "tk_figures"):
        env.tk_figures = {}
    return env.tk_figures


def forget(app, env, docname):
    env.tk_figures = {number: page for number, page in figures_of(env).items() if page != docname}


def merge(app, env, docnames, other):
    figures_of(env).update({number: page for number, page in figures_of(other).items() if page in docnames})


def address(app, docname: str, number: str) -> str | None:
    """The link from a page to a figure; None, with a warning, where no page has it."""
    page = figures_of(app.env).get(number)
    if page is None:
        LOG.warning("no figure has the number %s: say one that is there", number, location=docname)
        return None
    return ("" if page == docname else app.builder.get_relative_uri(docname, page)) + "#" + anchor(number)


def link(app, doctree, docname):
    """Mentions as links, in the text and in captions."""
    for text in list(doctree.findall(nodes.Text)):
        if MENTION.search(text) and not any(isinstance(node, QUIET) for node in parents(text)):
            text.parent.replace(text, linked(app, docname, text.astext()))
    for raw in doctree.findall(nodes.raw):
        if "<figcaption" in raw.astext():
            rewrite(raw, linked_captions(app, docname, raw.astext()))


def parents(node):
    while node.parent is not None:
        node = node.parent
        yield node


def linked(app, docname: str, text: str) -> list[nodes.Node]:
    """A text in pieces: words, and a link for every figure that is mentioned."""
    pieces, end = [], 0
    for found in MENTION.finditer(text):
        for mention in re.finditer(rf"(?:Figures?\s)?({NUMBER})", found[0]):
            where = address(app, docname, mention[1])
            if where is None:
                continue
            start = found.start() + mention.start()
            pieces += [nodes.Text(text[end:start])] * (start > end)
            pieces.append(nodes.reference("", mention[0], internal=True, refuri=where, classes=["tk-mention"]))
            end = found.start() + mention.end()
    return [*pieces, nodes.Text(text[end:])]


def linked_captions(app, docname: str, text: str) -> str:
    """HTML whose captions link the figures they mention; the label that a caption opens with stays."""

    def link_one(found: re.Match) -> str:
        where = address(app, docname, found[1])
        return found[0] if where is None else f'<a class="tk-mention" href="{where}">{found[0]}</a>'

    def link_words(found: re.Match) -> str:
        return re.sub(rf"(?:Figures?\s)?({NUMBER})", link_one, found[0])

    def caption(found: re.Match) -> str:
        head, sep, rest = found[0].partition("</strong>")
        return head + sep + "".join(p if p.startswith("<") else MENTION.sub(link_words, p) for p in WORDS.split(rest))

    return re.sub(r"<figcaption.*?</figcaption>", caption, text, flags=re.DOTALL)


def setup(app):
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("doctree-read", name_functions)
    app.connect("doctree-read", collect)
    app.connect("doctree-read", name_targets)
    app.connect("doctree-resolved", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
