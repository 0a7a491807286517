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

import thesis_kit
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


# ---- the setup cell


def set_up(monkeypatch, url: str, *, installed: bool) -> tuple[list[str], dict]:
    """Run the setup cell with the package or without it; return the pip lines it would have run, and its names."""
    lines, names = [], {}

    def magic(name: str, line: str, *_) -> None:
        lines.append(f"{name} {line}")
        monkeypatch.setitem(sys.modules, "thesis_kit", thesis_kit)

    monkeypatch.setitem(sys.modules, "thesis_kit", thesis_kit if installed else None)
    code = TransformerManager().transform_cell(tool.SETUP.format(repository=url))
    names["get_ipython"] = lambda: types.SimpleNamespace(run_line_magic=magic)
    exec(compile(code, "setup", "exec"), names)
    return lines, names


@pytest.mark.parametrize("url", ["", URL])
def test_where_the_package_is_there_nothing_is_installed(monkeypatch, url):
    lines, names = set_up(monkeypatch, url, installed=True)
    assert lines == []
    assert names["tk"] is thesis_kit
    assert names["session"].profile == "small"


def test_where_it_is_missing_it_is_installed_with_all_that_chapters_use(monkeypatch):
    lines, names = set_up(monkeypatch, URL, installed=False)
    assert lines == ['pip install --quiet "thesis_kit[all] @ git+{repository}"']
    assert names["repository"] == URL
    assert names["session"].profile == "small"


def test_an_unpublished_notebook_says_in_one_sentence_where_to_set_its_address(monkeypatch):
    with pytest.raises(ImportError, match="write the address of the book between the quotes after repository") as said:
        set_up(monkeypatch, "", installed=False)
    assert said.value.__suppress_context__
    assert str(said.value).count(". ") == 0


def test_stamping_writes_the_address_and_runs_nothing(root):
    path, source = root / "book" / "01_chapter.ipynb", root / "book" / "src" / "01_chapter.py"
    notebook = tool.compose(SOURCE, "01_chapter", "")
    notebook.cells[2].outputs = [new_output("stream", name="stdout", text="kept")]
    path.write_text(tool.serialize(notebook), encoding="utf-8")
    run(root, "--stamp", "--repo", "owner/name")
    stamped = nbformat.read(path, as_version=4)
    assert f'repository = "{URL}"' in stamped.cells[1].source
    assert "colab.research.google.com" in stamped.cells[0].source
    assert stamped.cells[2].outputs[0].text == "kept"
    run(root, "--check")
    run(root, "--stamp", "--repo", "")
    assert path.read_text(encoding="utf-8") == tool.serialize(notebook)
    source.write_text(f"{SOURCE}\n# %%\n1\n", encoding="utf-8")
    run(root, "--stamp", code=1)


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
