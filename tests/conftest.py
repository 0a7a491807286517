"""What every test runs under: shapes and types of thesis_kit checked at every call, one thread, no screen.

The built site, which the book's and the browser's tests read, is built once for all test processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TK_PROGRESS", "0")

import jaxtyping
import pytest
from filelock import FileLock

from tests import typechecker

# Before anything imports the package: its functions are compiled with the checker around them.
typechecker.install("thesis_kit")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _unchecked_in_bad_input(request):
    """In tests marked bad_input the checker is off, so that the function's own sentence is what is tested."""
    off = request.node.get_closest_marker("bad_input") is not None
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", off or before)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id) -> Path:
    """The folder of the built site; building it fails on the first warning, as `make book` does.

    Where ``make book`` has just built it, TK_SITE names its folder, and it is not built again.
    """
    if built := os.environ.get("TK_SITE"):
        return (ROOT / built).resolve(strict=True)
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "site"
    with FileLock(f"{shared}.lock"):
        report = shared / "report"
        if not report.exists():
            shared.mkdir(exist_ok=True)
            build = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "book"]
            where = ["--config", "_config.yml", "--toc", str(ROOT / "_toc.yml"), "--path-output", str(shared)]
            strict = ["-n", "-W", "--keep-going", "--quiet"]
            done = subprocess.run([*build, *where, *strict], cwd=ROOT, capture_output=True, text=True)
            report.write_text(f"{done.returncode}\n{done.stdout}\n{done.stderr}", encoding="utf-8")
    code, _, said = report.read_text(encoding="utf-8").partition("\n")
    assert code == "0", f"the site does not build without warnings:\n{said}"
    return shared / "_build" / "html"
