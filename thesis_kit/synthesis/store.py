"""Where a synthesis stands, and the checkpoint that keeps it.

Targets go through the network some at a time, so a synthesis stands somewhere in its stages for every such group of
targets. After each step the group's images and optimizer are copied, which costs little beside a pass through a
network; the file is written now and then, on Ctrl-C, and at the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thesis_kit.files import DamagedFile
from thesis_kit.files.checkpoints import Checkpoint
from thesis_kit.passes import Passes


@dataclass
class State:
    """Where some targets stand: in which stage, after how many of its steps, and with what."""

    stage: int = 0
    step: int = 0
    stored: Tensor | None = None
    adam: dict | None = None
    losses: list[Tensor] = field(default_factory=list)
    snapshots: list[tuple[int, Tensor]] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)


class Store:
    """The states of all targets, and the file that keeps them; without a path it keeps nothing.

    Args:
        path: of the checkpoint. every: write it at most every so many seconds.
        settings: what the checkpoint belongs to. steps: of all targets in all stages, for the words of an interruption.
    """

    def __init__(self, path: str | Path | None, every: float, settings: dict[str, Any], steps: int):
        self.states: dict[int, State] = {}
        self._path, self._steps, self._kept = path, steps, {}
        self._file = Checkpoint(path, "synthesis", settings, every=every, pack=self._packed)
        self._began, self._before, self._took = time.monotonic(), 0.0, None

    @property
    def seconds(self) -> float:
        """How long the synthesis has taken, earlier runs included."""
        return self._before + time.monotonic() - self._began if self._took is None else self._took

    @contextmanager
    def held(self) -> Iterator[None]:
        """The states are those of the file, which belongs to nobody else inside the block."""
        with self._file.held() as kept:
            if kept is not None:
                self._take_up(kept)
            yield

    def reached(self, number: int, state: State, *, finished: bool = False) -> None:
        """The targets of this number stand at the end of a step; ``finished`` where all targets stand at their end."""
        if self._path is None:
            return
        own = {"losses": [*state.losses], "snapshots": [*state.snapshots]}
        if state.adam is not None:
            own |= {"stored": state.stored.clone(), "adam": _cloned(state.adam)}
        self._kept = {**self._kept, number: replace(state, **own)}
        self._took = self.seconds if finished else None
        made = sum(len(one.losses) for one in self._kept.values())
        self._file.reached(self._kept, f"{made:,} of {self._steps:,} steps", finished=finished, changing=False)

    def _packed(self, states: dict[int, State]) -> dict[str, Any]:
        packed = {number: _packed(state) for number, state in states.items()}
        return {"seconds": self.seconds, "took": self._took, "states": packed}

    def _take_up(self, kept: dict[str, Any]) -> None:
        try:
            self._before, self._took = kept["seconds"], kept["took"]
            self.states = {number: _unpacked(state) for number, state in kept["states"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedFile(
                f"{self._path} does not hold what a synthesis keeps ({error!r}): remove it or name another file"
            ) from error
        self._kept = dict(self.states)


def _packed(state: State) -> dict[str, Any]:
    """A state as a file holds it: all losses in one tensor, for thousands of small ones are slow to write."""
    losses = torch.stack(state.losses) if state.losses else None
    return {**vars(state), "losses": losses, "passes": vars(state.passes)}


def _unpacked(kept: dict[str, Any]) -> State:
    losses = [] if kept["losses"] is None else [*kept["losses"].unbind()]
    return State(**{**kept, "losses": losses, "passes": Passes(**kept["passes"])})


def _cloned(tree: Any) -> Any:
    """An optimizer's state with tensors of its own."""
    if isinstance(tree, Tensor):
        return tree.clone()
    if isinstance(tree, dict):
        return {key: _cloned(value) for key, value in tree.items()}
    return [_cloned(value) for value in tree] if isinstance(tree, list) else tree
