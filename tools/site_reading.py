"""A Sphinx extension for who reads the site and runs nothing: code that is not the point waits behind one quiet word.

The setup cell shows what it comes to, without the lines that only a new machine needs. What scrolls sideways can be
reached by the keyboard, and formulas, which need no menu, cannot.
"""

from __future__ import annotations

import re

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode

GUARD = re.compile(r"try:\n    (import thesis_kit as tk\n)except ImportError:\n(?:    .*\n)+")
# Sphinx writes a signature of several lines as a list of definitions without terms.
SIGNATURE = re.compile(r'<dl>\s*((?:<dd><em class="sig-param">.*?</dd>\s*)+)</dl>', re.DOTALL)
SCROLLS = re.compile(r'<div class="(math notranslate nohighlight|highlight)"')


def shorten_setup(app, doctree):
    """The setup cell without what it does where the package is missing, folded."""
    for cell in doctree.findall(nodes.container):
        if "tag_setup" in cell.get("classes", []):
            cell["hide_mode"] = "input"
            cell["prompt_show"] = cell["prompt_hide"] = "setup"
            for code in cell.findall(nodes.literal_block):
                short = GUARD.sub(r"\1", code.astext())
                code.clear()
                code += nodes.Text(short)
                code.rawsource = short  # Pygments colors only what is as it was written


def open_fold(translator, node):
    """The marker of a folded cell: one word, which is also its name."""
    word = "setup" if node["prompt_show"] == "setup" else "code"
    translator.body.append(f'<details class="tk-code"><summary><span>{word}</span></summary>\n')


def close_fold(translator, node):
    translator.body.append("</details>\n")


def reachable(app, pagename, templatename, context, doctree):
    """Formulas and code that may scroll sideways take the focus, under a name."""
    if "body" in context:
        names = {"highlight": "code", "math notranslate nohighlight": "formula"}
        body = SCROLLS.sub(
            lambda found: f'{found[0]} tabindex="0" role="group" aria-label="{names[found[1]]}"', context["body"]
        )
        body = SIGNATURE.sub(as_lines, body)
        # docutils calls references a list, and none of them a member of it
        context["body"] = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')


def formulas_only_where_they_are(app, pagename, templatename, context, doctree):
    """The page that lists all others has MathJax for theirs; it goes where there is no formula of its own."""
    if not app.env.get_domain("math").data["has_equations"].get(pagename):
        named = [(script, str(getattr(script, "filename", ""))) for script in context.get("script_files", ())]
        context["script_files"] = [script for script, name in named if "mathjax" not in name]


def as_lines(found: re.Match) -> str:
    """A signature's parameters, each on a line of its own."""
    lines = found[1].replace("<dd>", '<span class="tk-param">').replace("</dd>", "</span>")
    return f'<span class="tk-lines">{lines}</span>'


def still_formulas(app, config):
    """MathJax without its menu, which would make every formula a stop of the tab key."""
    settings = dict(config.mathjax3_config or {})
    settings["options"] = {**settings.get("options", {}), "enableMenu": False}
    config.mathjax3_config = settings


def setup(app):
    app.add_node(HideCodeCellNode, override=True, html=(open_fold, close_fold))
    app.connect("config-inited", still_formulas, priority=900)
    app.connect("doctree-read", shorten_setup)
    app.connect("html-page-context", reachable)
    app.connect("html-page-context", formulas_only_where_they_are, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
