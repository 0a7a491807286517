"""A Sphinx extension of one rule: a property's docstring is prose, whatever colons its first line holds.

Napoleon reads "Share of images that survive: the worst case" as a type and its description; properties
therefore get their own text back after it.
"""

from __future__ import annotations

import inspect


def keep_prose(app, what, name, obj, options, lines):
    if what == "property":
        lines[:] = [*(inspect.getdoc(obj) or "").splitlines(), ""]


def setup(app):
    app.connect("autodoc-process-docstring", keep_prose, priority=600)  # after napoleon's 500
    return {"parallel_read_safe": True}
