"""The notebook tool: what it adds to a source, what it refuses, and that it writes the same bytes twice."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_output

from tools import build_notebooks as tool

pytestmark = pytest.mark.book
SOURCE = """\
# %% [markdown]
# # A chapter
#
# Prose.

# %% [setup]

# %% tags=["nbval-check-output"]
print("holds")

# %%
import os
print(os.listdir())
"""
CONFIG = (tool.ROOT / "_config.yml").read_text(encoding="utf-8")
URL = "https://github.com/owner/name"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "book" / "src").mkdir(parents=True)
    (tmp_path / "_config.yml").write_text(tool.stamp_config(CONFIG, ""), encoding="utf-8")
    (tmp_path / "book" / "src" / "01_chapter.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def run(root, *arguments, code: int = 0):
    assert tool.main(["--root", str(root), *arguments]) == code


# ---- composing


def test_a_source_becomes_a_notebook():
    notebook = tool.compose(SOURCE, "01_chapter", "")
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells] == ["cell-000", "cell-001", "cell-002", "cell-003"]
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code", "code", "code"]
    assert notebook.cells[1].source == tool.SETUP.format(repository="")
    assert notebook.cells[2].metadata == {"tags": ["nbval-check-output"]}
    assert notebook.metadata == tool.METADATA


def test_no_badge_while_nothing_is_published():
    assert "colab" not in tool.compose(SOURCE, "01_chapter", "").cells[0].source.lower()


def test_the_badge_and_the_install_line_are_stamped():
    notebook = tool.compose(SOURCE, "01_chapter", URL)
    assert "colab.research.google.com/github/owner/name/blob/main/book/01_chapter.ipynb" in notebook.cells[0].source
    assert notebook.cells[0].source.startswith("# A chapter\n\n[![Open in Colab]")
    assert f'repository = "{URL}"' in notebook.cells[1].source


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (SOURCE.replace("# %% [setup]", ""), "exactly one line"),
        (SOURCE + "\n# %% [setup]\n", "exactly one line"),
        (SOURCE.replace("# # A chapter", "# A chapter"), "must open with"),
    ],
)
def test_a_malformed_source_is_refused(source, sentence):
    with pytest.raises(tool.BuildError, match=sentence):
        tool.compose(source, "01_chapter", URL)


# ---- where it is published


def test_the_repository_is_known_in_one_place():
    """The lines of _config.yml that follow from repository.url are the ones the tool would write."""
    url = tool.repository_url(tool.ROOT)
    assert tool.stamp_config(CONFIG, url.removeprefix("https://github.com/")) == CONFIG


def test_stamping_there_and_back_changes_nothing_else():
    bare = tool.stamp_config(CONFIG, "")
    stamped = tool.stamp_config(bare, "owner/name")
    values = yaml.safe_load(stamped)
    assert values["repository"]["url"] == URL
    assert values["launch_buttons"]["colab_url"]
    assert values["html"]["use_repository_button"] is True
    assert sum(a != b for a, b in zip(bare.splitlines(), stamped.splitlines(), strict=True)) == 3
    assert tool.stamp_config(stamped, "") == bare


def test_a_repository_is_owner_and_name():
    with pytest.raises(tool.BuildError, match="owner/name"):
        tool.stamp_config(CONFIG, "https://github.com/owner/name")


# ---- the setup cell on Colab


def on_colab(monkeypatch, url: str) -> list[str]:
    """Run the setup cell as on Colab; return the pip lines it would have run."""
    lines = []
    shell = types.SimpleNamespace(run_line_magic=lambda name, line, *_: lines.append(f"{name} {line}"))
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    code = TransformerManager().transform_cell(tool.SETUP.format(repository=url))
    exec(compile(code, "setup", "exec"), {"get_ipython": lambda: shell})
    return lines


def test_on_colab_an_unpublished_notebook_says_where_to_set_its_repository(monkeypatch):
    with pytest.raises(SystemExit, match=r"repository\.url in _config\.yml"):
        on_colab(monkeypatch, "")


def test_on_colab_the_package_is_installed_from_the_stamped_repository(monkeypatch):
    (line,) = on_colab(monkeypatch, URL)
    assert line.startswith("pip install")
    assert "thesis_kit @ git+{repository}" in line


# ---- running


def test_a_notebook_has_the_same_bytes_twice_and_runs_in_an_empty_folder(root):
    target = root / "book" / "01_chapter.ipynb"
    run(root)
    first = target.read_bytes()
    run(root)
    assert target.read_bytes() == first
    listing = json.loads(first)["cells"][3]["outputs"][0]["text"]
    assert listing == ["[]\n"]
    run(root, "--check")


def test_check_names_what_differs(root, capsys):
    run(root, "--check", code=1)
    assert "book/01_chapter.ipynb is missing" in capsys.readouterr().out
    notebook = tool.compose(SOURCE, "01_chapter", "")
    notebook.cells[2].source = "print('edited by hand')"
    (root / "book" / "01_chapter.ipynb").write_text(tool.serialize(notebook), encoding="utf-8")
    run(root, "--check", code=1)
    assert "01_chapter: cell-002 differs from its source in its source" in capsys.readouterr().out


def test_a_failing_cell_is_named_and_nothing_is_written(root, capsys):
    source = root / "book" / "src" / "01_chapter.py"
    source.write_text(SOURCE.replace('print("holds")', "1 / 0"), encoding="utf-8")
    run(root, code=1)
    said = capsys.readouterr().err
    assert "01_chapter: cell-002 ('1 / 0') failed" in said
    assert "ZeroDivisionError" in said
    assert not list((root / "book").glob("*.ipynb*"))


def test_an_unknown_name_is_refused(root, capsys):
    run(root, "09", code=1)
    assert "no source whose name begins 09" in capsys.readouterr().err


# ---- cleaning


def stream(text: str, name: str = "stdout"):
    return new_output("stream", name=name, text=text)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (stream("careful", "stderr"), "writes to stderr"),
        (stream("saved to /home/somebody/file.txt"), "an absolute path"),
        (stream("saved to C:\\Users\\file.txt"), "an absolute path"),
        (new_output("execute_result", {"text/plain": "<Thing at 0x7f00aa11bb22>"}), "a memory address"),
        (new_output("display_data", {"text/html": "<p>/var/abc/x.png</p>"}), "an absolute path"),
    ],
)
def test_what_depends_on_the_machine_is_refused(output, sentence):
    with pytest.raises(tool.BuildError, match=sentence):
        tool.refuse_unpublishable(output, "01_chapter: cell-003")


@pytest.mark.parametrize(
    "output",
    [
        stream("ε = 8/255, and/or 3 / 4; see https://example.org/home/page"),
        new_output("display_data", {"text/html": '<img src="data:image/webp;base64,AAA/var/AAAA" alt="x">'}),
    ],
)
def test_harmless_outputs_pass(output):
    tool.refuse_unpublishable(output, "01_chapter: cell-003")


def test_pieces_of_one_stream_are_joined():
    joined = tool.merged([stream("a"), stream("b"), stream("x", "stderr"), stream("c")])
    assert [(o.name, o.text) for o in joined] == [("stdout", "ab"), ("stderr", "x"), ("stdout", "c")]


def test_widgets_leave_no_state():
    bare = new_output("display_data", {tool.WIDGET_VIEW: {}, "text/plain": "IntSlider()"})
    drawn = new_output("display_data", {tool.WIDGET_VIEW: {}, "text/html": "<p>drawn</p>"})
    assert tool.without_widget(bare) is None
    assert tool.without_widget(drawn).data == {"text/html": "<p>drawn</p>"}


def test_large_notebooks_are_refused(root):
    with pytest.raises(tool.BuildError, match="over the cap of 1,500,000"):
        tool.refuse_large(root, "01_chapter", tool.NOTEBOOK_BYTES + 1)
    for number in range(7):
        (root / "book" / f"0{number}_other.ipynb").write_bytes(b" " * 1_400_000)
    with pytest.raises(tool.BuildError, match="over the cap of 10,000,000"):
        tool.refuse_large(root, "08_chapter", 300_000)


def test_the_tool_says_what_it_can_do():
    shown = subprocess.run([sys.executable, tool.__file__, "--help"], capture_output=True, text=True, check=True)
    assert "--repo OWNER/NAME" in shown.stdout
