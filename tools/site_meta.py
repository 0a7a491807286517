"""A Sphinx extension that says what a page is about to whoever links to it: a description, and a card to share.

The description is the page's first sentences. A picture needs a whole address, so it is named only where the site knows
its own (``html_baseurl``).
"""

from __future__ import annotations

import html
import re

from docutils import nodes

LETTERS = 200
PICTURE = "_static/cost.png"


def described(doctree: nodes.document) -> str:
    """The first paragraphs that are sentences, cut at the end of a sentence or, failing that, of a word."""
    said = ""
    for paragraph in doctree.findall(nodes.paragraph):
        if len(said) >= LETTERS / 2:
            break
        said = " ".join(f"{said} {paragraph.astext()}".split())
    if len(said) <= LETTERS:
        return said
    cut = said[: LETTERS + 1]
    ends = [found.end() for found in re.finditer(r"[.?!](?= )", cut)]
    return cut[: ends[-1]] if ends and ends[-1] > LETTERS / 3 else cut.rsplit(" ", 1)[0] + " …"


def add_meta(app, pagename, templatename, context, doctree):
    if doctree is None:
        return
    words = {"description": described(doctree), "og:title": re.sub("<[^>]+>", "", context.get("title", ""))}
    words |= {"og:description": words["description"], "og:type": "article", "og:site_name": app.config.html_title or ""}
    if app.config.html_baseurl:
        base = app.config.html_baseurl.rstrip("/")
        words |= {"og:url": f"{base}/{pagename}.html", "og:image": f"{base}/{PICTURE}", "twitter:card": "summary"}
    tags = "".join(_tag(name, html.unescape(text)) for name, text in words.items() if text)
    context["metatags"] = context.get("metatags", "") + tags


def _tag(name: str, text: str) -> str:
    key = "property" if name.startswith("og:") else "name"
    return f'<meta {key}="{name}" content="{html.escape(text, quote=True)}">\n'


def setup(app):
    app.connect("html-page-context", add_meta)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
