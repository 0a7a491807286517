"""A chapter as on Colab: one notebook alone in an empty folder, the package installed from a wheel.

The environment sees the dependencies of this one but not the checkout, so that a file missing from the wheel, or a
notebook that reads beside itself, fails here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tools import build_notebooks as tool

pytestmark = pytest.mark.book
NOTEBOOKS = sorted((tool.ROOT / "book").glob("*.ipynb"))
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3", store_widget_state=False).execute()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of the tree, built from a copy so that no stale build folder gets in."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(tool.ROOT / "thesis_kit", tree / "thesis_kit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(tool.ROOT / name, tree)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (found,) = out.glob("thesis_kit-*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The interpreter of an environment with the wheel and this environment's dependencies, without the checkout."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    interpreter = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    library = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    # Files *.pth inside the added folders are not read, so the editable install stays behind.
    folders = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    (library / "dependencies.pth").write_text("\n".join(folders) + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter), "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True, text=True)
    return interpreter


def run(python: Path, folder: Path, *arguments: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST", "JUPYTER"))}
    done = subprocess.run(
        [python, *arguments], cwd=folder, env=clean | tool.ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{' '.join(arguments)[:80]} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_package_comes_from_the_wheel(python, tmp_path):
    where = run(python, tmp_path, "-c", "import thesis_kit; print(thesis_kit.__file__)")
    assert Path(where.strip()).is_relative_to(python.parent.parent)


def test_the_wheel_holds_every_module_and_data_file(python):
    (inside,) = python.parent.parent.rglob("thesis_kit/__init__.py")
    kinds = ("*.py", "*.json", "*.jsonl", "*.yml", "*.safetensors", "py.typed")
    ours = {p.relative_to(tool.ROOT / "thesis_kit") for kind in kinds for p in (tool.ROOT / "thesis_kit").rglob(kind)}
    ours = {path for path in ours if path.parent != Path("models", "weights", "cohorts")}  # not shipped
    theirs = {p.relative_to(inside.parent) for kind in kinds for p in inside.parent.rglob(kind)}
    assert ours == theirs


def test_the_command_line_works_from_the_wheel(python, tmp_path):
    shown = run(python, tmp_path, "-m", "thesis_kit.cli", "claims", "list")
    assert "free-robust" in shown


@pytest.mark.skipif(not NOTEBOOKS, reason="there is no notebook yet")
def test_a_notebook_runs_alone(python, tmp_path):
    notebook = shutil.copy(NOTEBOOKS[0], tmp_path)
    run(python, tmp_path, "-c", EXECUTE, str(notebook))
    assert [path.name for path in tmp_path.iterdir()] == [NOTEBOOKS[0].name]
