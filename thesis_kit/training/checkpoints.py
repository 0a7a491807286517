"""Checkpoints of a training run: written whole or not at all, read back only if unaltered and of the same run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from thesis_kit.files import seal, unseal, write_atomic
from thesis_kit.passes import Passes

if TYPE_CHECKING:
    from thesis_kit.training.methods import Natural
    from thesis_kit.training.run import Run


def save_checkpoint(path: str | Path, run: Run, method: Natural, settings: dict, report: dict) -> None:
    """Write everything that resuming needs, sealed with a SHA-256, under a temporary name first."""
    buffer = io.BytesIO()
    torch.save(
        {
            "settings": settings,
            "done": run.done,
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.scaler.state_dict(),
            "method": method.state(),
            "report": report,
        },
        buffer,
    )
    write_atomic(path, seal(buffer.getvalue()))


def load_checkpoint(path: str | Path, run: Run, method: Natural, settings: dict, report_type: type):
    """Bring ``run`` and ``method`` to where the checkpoint left them; return the report so far (new without a file).

    Raises:
        ValueError: the file is altered or truncated, or belongs to a run with other settings, which are named.
    """
    path = Path(path)
    if not path.exists():
        return report_type()
    payload = unseal(path.read_bytes(), path)
    device = next(run.model.parameters()).device
    held = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    differing = [f"{key} was {held['settings'].get(key)!r}, is {value!r}" for key, value in settings.items()
                 if held["settings"].get(key) != value]  # fmt: skip
    if differing:
        raise ValueError(
            f"{path} is the checkpoint of another run ({'; '.join(differing)}): remove it or name another file"
        )
    run.model.load_state_dict(held["model"])
    run.optimizer.load_state_dict(held["optimizer"])
    run.scaler.load_state_dict(held["scaler"])
    run.done = held["done"]
    method.restore(held["method"])
    return report_type(**{**held["report"], "passes": Passes(**held["report"]["passes"])})
