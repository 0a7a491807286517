"""A Sphinx extension that corrects three things of the site's stack.

Docstrings are prose: a property's first line may hold colons, which napoleon would read as "type: description", and a
signature in a sentence may hold a bare star, which is no emphasis. And thebe, which jupyter-book always loads, puts
scripts on every page that nothing here uses, one of which fails.
"""

from __future__ import annotations

import inspect
import re

BARE_STAR = re.compile(r"(``.*?``)|(?<=[\s(])\*(?=[,)])")


def keep_prose(app, what, name, obj, options, lines):
    if what == "property":
        lines[:] = [*(inspect.getdoc(obj) or "").splitlines(), ""]
    lines[:] = [BARE_STAR.sub(lambda found: found.group(1) or r"\*", line) for line in lines]


def without_thebe(app, config):
    unwanted = {"init_thebe_core", "update_thebe_context"}
    for listeners in app.events.listeners.values():
        listeners[:] = [listener for listener in listeners if getattr(listener.handler, "__name__", "") not in unwanted]


def setup(app):
    app.connect("autodoc-process-docstring", keep_prose, priority=600)  # after napoleon's 500
    app.connect("config-inited", without_thebe)
    return {"parallel_read_safe": True}
