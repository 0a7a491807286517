"""A Sphinx extension that corrects two things of the site's stack.

A property's docstring is prose, whatever colons its first line holds: napoleon reads "Share of images that survive:
the worst case" as a type and its description. And thebe, which jupyter-book always loads, puts scripts on every page
that nothing here uses, one of which fails.
"""

from __future__ import annotations

import inspect


def keep_prose(app, what, name, obj, options, lines):
    if what == "property":
        lines[:] = [*(inspect.getdoc(obj) or "").splitlines(), ""]


def without_thebe(app, config):
    unwanted = {"init_thebe_core", "update_thebe_context"}
    for listeners in app.events.listeners.values():
        listeners[:] = [listener for listener in listeners if getattr(listener.handler, "__name__", "") not in unwanted]


def setup(app):
    app.connect("autodoc-process-docstring", keep_prose, priority=600)  # after napoleon's 500
    app.connect("config-inited", without_thebe)
    return {"parallel_read_safe": True}
