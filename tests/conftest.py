"""What every test runs under: shapes and types of thesis_kit checked at every call, one thread, no screen."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TK_PROGRESS", "0")

import jaxtyping
import pytest

import tests.typechecker  # noqa: F401  (the hook below names it)

# Before anything imports the package: its functions are compiled with the checker around them.
jaxtyping.install_import_hook("thesis_kit", "tests.typechecker.check")


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
