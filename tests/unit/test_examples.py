"""Every public function of the API pages has an example, which runs and gives what it says.

An example may use what ``api.md`` introduces: ``torch``, ``tk``, a ``model`` and four ``digits``.
"""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import torch

import thesis_kit as tk

BOOK = Path(__file__).resolve().parents[2] / "book"
PAGE = (BOOK / "api.md").read_text(encoding="utf-8")
ROOMS = "".join(page.read_text(encoding="utf-8") for page in sorted((BOOK / "api").glob("*.md")))
NEEDS = {  # beyond what the package itself needs
    **dict.fromkeys(("say", "say_all", "splits", "change", "edited", "over_pieces", "pieces", "resynthesize",
                     "targeted", "top_segments"), "espeakng_loader"),
}  # fmt: skip


def listed() -> dict[str, object]:
    """The functions that the pages of the rooms show, by name."""
    found = {}
    for home, options in re.findall(r"\.\. automodule:: (\S+)\n((?:   .*\n)*)", ROOMS):
        module = importlib.import_module(home)
        left_out = re.search(r":exclude-members: (.*)", options)
        left_out = set(left_out.group(1).split(", ")) if left_out else set()
        if ":no-members:" in options:
            continue
        names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
        for name in sorted(set(names) - left_out):
            one = getattr(module, name)
            own = one.__module__ == home if inspect.isfunction(one) else False
            if own or (inspect.isfunction(one) and ":imported-members:" in options):
                found[f"{home}.{name}"] = one
    for home, name in re.findall(r"\.\. autofunction:: (\S+)\.(\w+)\n", ROOMS):
        found[f"{home}.{name}"] = getattr(importlib.import_module(home), name)
    return found


FUNCTIONS = listed()


@pytest.fixture(scope="module")
def known():
    return {"torch": torch, "tk": tk, "model": tk.zoo.load("cnn-digits-natural"), "digits": tk.data.digits().test[:4]}


def test_the_page_introduces_what_examples_use(known):
    lines = re.search(r"```python\nimport torch\n(.*?)```", PAGE, re.DOTALL).group(1)
    given = {"torch": torch}
    exec(lines, given)
    assert given.keys() >= known.keys()
    assert torch.equal(given["digits"].x, known["digits"].x)
    assert torch.equal(given["model"](given["digits"].x), known["model"](given["digits"].x))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_an_example_that_is_right(name, known, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = FUNCTIONS[name].__doc__ or ""
    example = doctest.DocTestParser().get_doctest(inspect.cleandoc(text), dict(known), name, None, 0)
    assert 1 <= len(example.examples) <= 5, f"{name} needs an example of one to five steps in its docstring"
    assert "\nExamples:\n" in inspect.cleandoc(text)
    needed = NEEDS.get(name.rpartition(".")[2])
    if needed and not importlib.util.find_spec(needed):
        pytest.skip(f"the package {needed} is not installed")
    told = []
    doctest.DocTestRunner(verbose=False).run(example, out=told.append)
    assert not told, "".join(told)
