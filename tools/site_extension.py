"""A Sphinx extension that corrects four things of the site's stack.

Docstrings are prose: a property's first line may hold colons, which napoleon would read as "type: description", and a
signature in a sentence may hold a bare star, which is no emphasis. Thebe, which jupyter-book always loads, puts scripts
on every page that nothing here uses, one of which fails. And the notebooks' Colab badge, an image from another host, is
left to GitHub: the site has a launch button.
"""

from __future__ import annotations

import inspect
import re

from docutils import nodes

BARE_STAR = re.compile(r"(``.*?``)|(?<=[\s(])\*(?=[,)])")


def keep_prose(app, what, name, obj, options, lines):
    if what == "property":
        lines[:] = [*(inspect.getdoc(obj) or "").splitlines(), ""]
    lines[:] = [BARE_STAR.sub(lambda found: found.group(1) or r"\*", line) for line in lines]


def without_thebe(app, config):
    unwanted = {"init_thebe_core", "update_thebe_context"}
    for listeners in app.events.listeners.values():
        listeners[:] = [listener for listener in listeners if getattr(listener.handler, "__name__", "") not in unwanted]


def without_badge(app, doctree):
    for image in list(doctree.findall(nodes.image)):
        if image["uri"].startswith("https://colab.research.google.com/"):
            line = image.parent.parent  # the paragraph around the link around the image
            line.parent.remove(line)


def setup(app):
    app.connect("autodoc-process-docstring", keep_prose, priority=600)  # after napoleon's 500
    app.connect("config-inited", without_thebe)
    app.connect("doctree-read", without_badge, priority=400)  # before images are collected
    return {"parallel_read_safe": True}
