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


# What begins with long work that others share (the site, a chapter in miniature, a network's diagnosis), so that it is
# not left for the end, when nothing remains for the other process to do.
BUILDS_THE_SITE = ("browser", "book/test_pages", "book/test_frame", "book/test_sentences")
LONG = (
    "unit/test_arms", "unit/test_certificates", "unit/test_inversion", "unit/test_transfer_e",
    "unit/test_regularization", "book/test_recorded", "book/test_readme", "book/test_alone", "unit/test_masking",
    "contract/test_inversion", "unit/test_light", "unit/test_resume", "faults",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Two processes begin at the first and at the middle test and end in each other's rest: both begin with long ones.

    Tests of a page in the browser stand together, so that a page is opened by one process only.
    """

    def begins(item, names) -> bool:
        return item.nodeid.removeprefix("tests/").startswith(names)

    def page(item) -> str:
        return str(item.callspec.params.get("name", "")) if hasattr(item, "callspec") else ""

    site = sorted((item for item in items if begins(item, BUILDS_THE_SITE)), key=page)
    long = [item for item in items if begins(item, LONG)]
    short = [item for item in items if not begins(item, BUILDS_THE_SITE + LONG)]
    middle = max(0, len(items) // 2 - len(site))
    items[:] = [*site, *short[:middle], *long, *short[middle:]]


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
