"""The one loop that optimizes an input: parametrization → augmentations → network → objective → step.

Plug-In Inversion, feature visualization, the inversion of CLIP and sonification are settings of it. Many targets go
through the network together, e copies of each. A target's result depends on the seed, its id and its own objective, and
on no other target: random numbers are its own, the loss is a sum over targets, and Adam works number by number.
Networks are taken in evaluation mode, no gradient is computed for their weights, and a forward pass ends at the deepest
layer that the objective reads.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from thesis_kit.asking import Model, as_module, borrowed, plain
from thesis_kit.casting import PRECISIONS
from thesis_kit.checks import check_count, check_path, choose
from thesis_kit.passes import Passes
from thesis_kit.progress import track
from thesis_kit.synthesis.augmentations import Augmentation
from thesis_kit.synthesis.canvas import Canvas
from thesis_kit.synthesis.descent import run
from thesis_kit.synthesis.objectives import Objective, whole_numbers
from thesis_kit.synthesis.parametrizations import Pixels
from thesis_kit.synthesis.plan import (
    Adam,
    Plan,
    Stage,
    check_parts_can_be_told_apart,
    count_of,
    listed,
    outside,
    whole,
)
from thesis_kit.synthesis.store import Store


@dataclass
class Synthesis:
    """What a synthesis came to.

    ``images`` (n, c, h, w) in [0, 1], or sounds (n, 1, 1, t) in [−1, 1], on the CPU; ``losses`` (steps, n) through all
    stages; ``snapshots``: stage by stage the images at its end (and, where asked for, on the way) with the number of
    steps made; ``passes`` and ``seconds`` are the cost, of all runs if it was resumed, ``peak_bytes`` the accelerator's
    largest allocation in the last run (None on a CPU).
    """

    images: Tensor
    losses: Tensor
    snapshots: list[tuple[int, Tensor]] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)
    seconds: float = 0.0
    peak_bytes: int | None = None

    def __getitem__(self, rows: Tensor | slice) -> Synthesis:
        """Some of the images with their losses and snapshots; passes and seconds stay those of all."""
        snapshots = [(steps, images[rows]) for steps, images in self.snapshots]
        return replace(self, images=self.images[rows], losses=self.losses[:, rows], snapshots=snapshots)

    def __str__(self) -> str:
        n, c, h, w = self.images.shape
        first, last = (f"{losses.mean():.3g}" for losses in self.losses[[0, -1]])
        return (
            f"{n} inputs of {c} × {h} × {w} after {len(self.losses):,} steps: mean loss {first} at first, {last} at "
            f"last; {self.passes.forward_images:,} copies passed in {self.seconds:.0f} s"
        )

_CACHED = 64 * 64 * 64  # pixels of a pass on a CPU


def synthesize(
    model: Model,
    objective: Objective,
    *,
    targets: int | None = None,
    stages: Stage | Sequence[Stage],
    channels: int = 3,
    parametrization: Canvas | None = None,
    augmentations: Augmentation | Sequence[Augmentation] = (),
    optimizer: Adam | None = None,
    start: Float[Tensor, "n c h w"] | None = None,
    seed: int = 0,
    ids: Sequence[int] | None = None,
    batch: int | None = None,
    precision: str = "float32",
    snapshot_every: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    progress: bool | None = None,
) -> Synthesis:
    """Optimize one input a target until it makes the objective small.

    Args:
        model: pixels in [0, 1] to whatever the objective reads; taken in evaluation mode and left as found.
        objective: one number a target, to be made small; see ``synthesis.objectives``.
        targets: how many; where the objective says so it need not be given.
        stages: sizes and steps, one after another; a single one need not be in a list, and so for augmentations.
        channels: of the images.
        parametrization: what is optimized; ``Pixels()`` unless given. Sounds have ``Waveform()`` or ``ShortTime()``,
            one channel and stages of the size (1, samples).
        augmentations: what happens to the images before the network, in order; see ``synthesis.augmentations``.
        optimizer: ``Adam()`` unless given.
        start: images to begin with, of the first stage's size; drawn by the parametrization unless given.
        seed: of all random numbers.
        ids: (n,) different whole numbers that tell the targets apart; with the seed they decide a target's random
            numbers. 0, 1, … unless given.
        batch: images a pass, copies counted, but at least all copies of one target; on a CPU 64 of 64 × 64 pixels and
            16 of 128 × 128, on a GPU 256, unless given. Changes rounding alone.
        precision: of the network's passes: "float32", "bfloat16" or "float16".
        snapshot_every: keep images every so many steps too, not only at the ends of stages.
        checkpoint: a file to write at most every ``checkpoint_seconds``, at the end and on Ctrl-C, and to resume from
            if it exists. It belongs to these weights, settings and batch, and on a CPU to this number of threads, which
            rounding depends on; parts of your own are told apart by their ``repr``, objectives by their ``settings``.
        progress: show a bar; None follows the session.

    Returns:
        A ``Synthesis``.

    Raises:
        ValueError, TypeError: settings that cannot be meant; an altered checkpoint or one of another synthesis; parts
            that a checkpoint could not tell apart.
        NonFiniteOutput: the loss became NaN or infinite.
        UnknownName: a layer does not exist.

    Warns:
        UserWarning: the objective has no gradient for some targets, with its likely cause; BatchNorm has no running
            statistics, so that targets of a pass depend on one another.

    Examples:
        >>> stages = [tk.synthesis.Stage(4, 5), tk.synthesis.Stage(8, 5)]
        >>> made = tk.synthesis.synthesize(model, tk.synthesis.cross_entropy([3, 7]), channels=1, stages=stages)
        >>> made.images.shape
        torch.Size([2, 1, 8, 8])
    """
    choose(precision, PRECISIONS, "precision")
    model = as_module(model)
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must be one of synthesis's, such as cross_entropy(classes), got {objective!r}")
    parametrization, optimizer = parametrization or Pixels(), optimizer or Adam()
    if not isinstance(parametrization, Canvas):
        raise TypeError(f"parametrization must be one of synthesis's, such as Pixels(), got {parametrization!r}")
    if not isinstance(optimizer, Adam):
        raise TypeError(f"optimizer must be a synthesis.Adam, such as Adam(lr=0.05), got {optimizer!r}")
    stages = listed(stages, lambda stage: isinstance(stage, Stage), "stages", "Stage(size, steps)")
    augmentations = listed(augmentations, callable, "augmentations", "Jitter(8)")
    seed, n = whole(seed, "seed"), count_of(objective, targets, start)
    if not stages:
        raise ValueError("a synthesis needs at least one stage")
    ids = torch.arange(n) if ids is None else whole_numbers(ids, "ids")
    if len(ids) != n or len(ids.unique()) != n:
        raise ValueError(f"ids must be {n} different numbers, one a target, got {ids.tolist()[:8]}")
    if start is not None:
        parametrization.check(start)
        start = plain(start)
        if start.shape != (n, channels, *stages[0].sides):
            raise ValueError(f"start must have shape {(n, channels, *stages[0].sides)}, got {tuple(start.shape)}")
    for value, what in ((snapshot_every, "snapshot_every"), (batch, "batch")):
        if value is not None:
            check_count(value, what=what)
    if any(isinstance(m, _BatchNorm) and m.running_mean is None for m in model.modules()):
        warnings.warn(
            "the model has batch normalization without running statistics: targets of a pass act on one another, and "
            "`batch` decides results", stacklevel=outside(),
        )  # fmt: skip
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    plan = Plan(
        model, objective, stages, channels, parametrization, augmentations, optimizer, seed, ids, start, device,
        precision, snapshot_every, batch or _images_a_pass(stages, device),
    )  # fmt: skip
    if checkpoint is not None:
        check_path(checkpoint, what="checkpoint")
        check_parts_can_be_told_apart(plan)
    rows = torch.arange(n).split(plan.targets_a_pass)
    total = sum(stage.steps for stage in stages) * len(rows)
    store = Store(checkpoint, checkpoint_seconds, {} if checkpoint is None else plan.settings, total)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with borrowed(model, "a synthesis"), store.held(), track("synthesis", total, progress) as bar:
        states = [run(plan, some, store, number, len(rows), bar) for number, some in enumerate(rows)]
    images = [torch.cat(parts) for parts in zip(*([kept for _, kept in s.snapshots] for s in states), strict=True)]
    return Synthesis(
        images=images[-1],
        losses=torch.cat([torch.stack(state.losses) for state in states], dim=1),
        snapshots=list(zip([step for step, _ in states[0].snapshots], images, strict=True)),
        passes=sum((state.passes for state in states), Passes()),
        seconds=store.seconds,
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def _images_a_pass(stages: Sequence[Stage], device: torch.device) -> int:
    """How many images go through together where nobody says: on a CPU as many as its cache holds, for beyond it 64
    images of 128 × 128 pixels take half as long again for each as 16 do (EfficientNet-Lite0, one core)."""
    if device.type == "cuda":
        return 256
    pixels = max(math.prod(stage.sides) for stage in stages)
    return 64 if any(1 in stage.sides for stage in stages) else min(64, max(4, _CACHED // pixels))
