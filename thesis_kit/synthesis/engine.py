"""The one loop that optimizes an input: parametrization → augmentations → network → objective → step.

Plug-In Inversion, feature visualization, the inversion of CLIP and sonification are settings of it. Many targets go
through the network together, e copies of each. A target's result depends on the seed, its id and its own objective, and
on no other target: random numbers are its own, the loss is a sum over targets, and Adam works number by number.
Networks are taken in evaluation mode, no gradient is computed for their weights, and a forward pass ends at the deepest
layer that the objective reads.
"""

from __future__ import annotations

import math
import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from thesis_kit.asking import Model, as_module, borrowed, plain
from thesis_kit.checks import NonFiniteOutput, check_count, check_images, choose
from thesis_kit.identity import fingerprint, tensor_hash
from thesis_kit.passes import Passes
from thesis_kit.progress import Bar, track
from thesis_kit.randomness import ImageRandom, mix_seed
from thesis_kit.recording.watching import Watcher
from thesis_kit.synthesis.augmentations import Augmentation, Ensemble, Moment, augment
from thesis_kit.synthesis.objectives import Objective, whole_numbers
from thesis_kit.synthesis.parametrizations import Parametrization, Pixels, Size
from thesis_kit.synthesis.store import State, Store

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
SCHEDULES = ("cosine", "constant")
_LOSS_SCALE = {"float16": 2.0**10}  # so that small gradients do not vanish; taken out again before the step
PACKAGE = __name__.partition(".")[0] + "."
_FRESH, _STEP, _STAGE = range(3)  # streams of the seed


@dataclass(frozen=True)
class Stage:
    """A part of a synthesis at one size.

    Args:
        size: (height, width), or one number for a square.
        steps: of the optimizer, which starts anew with each stage.
        border: the images of the stage before are resized to ``size`` minus ``border`` and laid in the middle of fresh
            noise: 0 only enlarges (zoom), and the whole difference of the sizes only adds noise around (centering). Not
            used in the first stage.
    """

    size: int | tuple[int, int]
    steps: int
    border: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.size, tuple) and len(self.size) != 2:
            raise ValueError(f"the size of a stage is (height, width) or one number, got {self.size}")
        for side in self.sides:
            check_count(side, what="size of a stage")
        check_count(self.steps, what="steps of a stage")
        check_count(self.border, what="border of a stage", least=0)
        if self.border >= min(self.sides):
            raise ValueError(f"a border of {self.border} leaves nothing of a stage of size {self.size}")

    @property
    def sides(self) -> Size:
        """Height and width."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)


@dataclass(frozen=True)
class Adam:
    """The optimizer of a stage; the defaults are those of Plug-In Inversion.

    Args:
        lr: learning rate at a stage's beginning. betas: Adam's decay rates. schedule: "cosine" to 0 within every stage,
            or "constant".
    """

    lr: float = 0.01
    betas: tuple[float, float] = (0.5, 0.99)
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        choose(self.schedule, SCHEDULES, "schedule")
        if not (isinstance(self.lr, Real) and 0 < self.lr < math.inf):
            raise ValueError(f"lr must be a positive, finite number, got {self.lr!r}")

    def rate(self, progress: float) -> float:
        """The learning rate when a share of the stage is done."""
        return self.lr * (0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1.0)


@dataclass
class Synthesis:
    """What a synthesis came to.

    ``images`` (n, c, h, w) in [0, 1], on the CPU; ``losses`` (steps, n) through all stages; ``snapshots``: stage by
    stage the images at its end (and, where asked for, on the way) with the number of steps made; ``passes`` and
    ``seconds`` are the cost, of all runs if it was resumed, ``peak_bytes`` the accelerator's largest allocation in the
    last run (None on a CPU).
    """

    images: Tensor
    losses: Tensor
    snapshots: list[tuple[int, Tensor]] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)
    seconds: float = 0.0
    peak_bytes: int | None = None

    def __str__(self) -> str:
        n, c, h, w = self.images.shape
        first, last = (f"{losses.mean():.3g}" for losses in self.losses[[0, -1]])
        return (
            f"{n} inputs of {c} × {h} × {w} after {len(self.losses):,} steps: mean loss {first} at first, {last} at "
            f"last; {self.passes.forward_images:,} copies passed in {self.seconds:.0f} s"
        )


def synthesize(
    model: Model,
    objective: Objective,
    *,
    targets: int | None = None,
    stages: Stage | Sequence[Stage],
    channels: int = 3,
    parametrization: Parametrization | None = None,
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
        parametrization: what is optimized; ``Pixels()`` unless given.
        augmentations: what happens to the images before the network, in order; see ``synthesis.augmentations``.
        optimizer: ``Adam()`` unless given.
        start: images to begin with, of the first stage's size; drawn by the parametrization unless given.
        seed: of all random numbers.
        ids: (n,) different whole numbers that tell the targets apart; with the seed they decide a target's random
            numbers. 0, 1, … unless given.
        batch: images a pass, copies counted, but at least all copies of one target; some 64 on a CPU and 256 on a GPU
            unless given. Changes rounding alone.
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
    """
    choose(precision, PRECISIONS, "precision")
    model = as_module(model)
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must be one of synthesis's, such as cross_entropy(classes), got {objective!r}")
    parametrization, optimizer = parametrization or Pixels(), optimizer or Adam()
    if not isinstance(parametrization, Parametrization):
        raise TypeError(f"parametrization must be one of synthesis's, such as Pixels(), got {parametrization!r}")
    if not isinstance(optimizer, Adam):
        raise TypeError(f"optimizer must be a synthesis.Adam, such as Adam(lr=0.05), got {optimizer!r}")
    stages = _listed(stages, lambda stage: isinstance(stage, Stage), "stages", "Stage(size, steps)")
    augmentations = _listed(augmentations, callable, "augmentations", "Jitter(8)")
    seed, n = _whole(seed, "seed"), _count(objective, targets, start)
    if not stages:
        raise ValueError("a synthesis needs at least one stage")
    ids = torch.arange(n) if ids is None else whole_numbers(ids, "ids")
    if len(ids) != n or len(ids.unique()) != n:
        raise ValueError(f"ids must be {n} different numbers, one a target, got {ids.tolist()[:8]}")
    if start is not None:
        check_images(start)
        start = plain(start)
        if start.shape != (n, channels, *stages[0].sides):
            raise ValueError(f"start must have shape {(n, channels, *stages[0].sides)}, got {tuple(start.shape)}")
    for value, what in ((snapshot_every, "snapshot_every"), (batch, "batch")):
        if value is not None:
            check_count(value, what=what)
    if any(isinstance(m, _BatchNorm) and m.running_mean is None for m in model.modules()):
        warnings.warn(
            "the model has batch normalization without running statistics: targets of a pass act on one another, and "
            "`batch` decides results", stacklevel=_outside(),
        )  # fmt: skip
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    plan = _Plan(
        model, objective, stages, channels, parametrization, augmentations, optimizer, seed, ids, start, device,
        precision, snapshot_every, batch or (256 if device.type == "cuda" else 64),
    )  # fmt: skip
    if checkpoint is not None:
        _check_parts_can_be_told_apart(plan)
    rows = torch.arange(n).split(plan.targets_a_pass)
    total = sum(stage.steps for stage in stages) * len(rows)
    store = Store(checkpoint, checkpoint_seconds, {} if checkpoint is None else plan.settings, total)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with borrowed(model, "a synthesis"), store.held(), track("synthesis", total, progress) as bar:
        states = [_run(plan, some, store, number, len(rows), bar) for number, some in enumerate(rows)]
    images = [torch.cat(parts) for parts in zip(*([kept for _, kept in s.snapshots] for s in states), strict=True)]
    return Synthesis(
        images=images[-1],
        losses=torch.cat([torch.stack(state.losses) for state in states], dim=1),
        snapshots=list(zip([step for step, _ in states[0].snapshots], images, strict=True)),
        passes=sum((state.passes for state in states), Passes()),
        seconds=store.seconds,
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def _listed(given: object, fits: Callable[[object], bool], what: str, example: str) -> tuple:
    """One part or several, as a tuple."""
    parts = tuple(given) if isinstance(given, Iterable) and not fits(given) else (given,)
    for part in parts:
        if not fits(part):
            raise TypeError(f"{what} must be one or several of synthesis's, such as {example}, got {part!r}")
    return parts


def _whole(value: object, what: str) -> int:
    """A whole number, of whatever type."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be a whole number, got {value!r}") from None


def _check_parts_can_be_told_apart(plan: _Plan) -> None:
    """A checkpoint that cannot tell what it belongs to would be resumed by something else, or by nothing."""
    if plan.objective.settings is None:
        raise ValueError(
            f"a checkpoint must tell objectives apart, and {plan.objective.name} does not say what decides its values: "
            "give Objective(settings=…), a text"
        )
    for part in (plan.parametrization, *plan.augmentations):
        if " at 0x" in repr(part):
            raise ValueError(
                f"a checkpoint tells parts apart by their repr, and {part!r} has another one in every process: make it "
                "a class with a __repr__, such as a dataclass"
            )


def _count(objective: Objective, targets: int | None, start: Tensor | None) -> int:
    """How many targets there are, said by the objective, the caller or the images to start with."""
    said = {count for count in (objective.targets, targets, None if start is None else len(start)) if count is not None}
    if len(said) != 1:
        raise ValueError(
            f"{objective.name} does not say how many targets there are: give targets"
            if not said else f"the objective, targets and start speak of different numbers of targets: {sorted(said)}"
        )  # fmt: skip
    (n,) = said
    check_count(n, what="targets")
    return n


@dataclass
class _Plan:
    """Everything that a synthesis is made of."""

    model: nn.Module
    objective: Objective
    stages: tuple[Stage, ...]
    channels: int
    parametrization: Parametrization
    augmentations: tuple[Augmentation, ...]
    optimizer: Adam
    seed: int
    ids: Tensor
    start: Tensor | None
    device: torch.device
    precision: str
    snapshot_every: int | None
    batch: int

    @property
    def targets_a_pass(self) -> int:
        """Targets that go through the network together."""
        return max(1, int(self.batch) // int(self.copies))

    @property
    def copies(self) -> int:
        """Copies of every target in a pass."""
        return math.prod(a.copies for a in self.augmentations if isinstance(a, Ensemble))

    def random(self, rows: Tensor, *stream: int) -> ImageRandom:
        """Random numbers of some targets, for one purpose."""
        return ImageRandom(mix_seed(self.seed, *stream), self.ids[rows].to(self.device))

    @property
    def settings(self) -> dict[str, object]:
        """Everything that decides the result, as far as it can be told."""
        return {
            "objective": self.objective.settings, "stages": repr(self.stages), "channels": self.channels,
            "parametrization": repr(self.parametrization), "augmentations": repr(self.augmentations),
            "optimizer": repr(self.optimizer), "seed": self.seed, "ids": self.ids.tolist(),
            "start": None if self.start is None else tensor_hash(self.start), "weights": fingerprint(self.model),
            "precision": self.precision, "snapshot_every": self.snapshot_every, "targets a pass": self.targets_a_pass,
            "device": self.device.type, "threads": torch.get_num_threads() if self.device.type == "cpu" else None,
        }  # fmt: skip


def _run(plan: _Plan, rows: Tensor, store: Store, number: int, groups: int, bar: Bar) -> State:
    """Take some targets through all stages, from where a checkpoint has them."""
    state = store.states.setdefault(number, State())
    bar.advance(len(state.losses))
    watcher = Watcher(plan.model, plan.objective.layers, plan.objective.optional)
    with watcher.watching():
        while state.stage < len(plan.stages):
            stage = plan.stages[state.stage]
            leaf = state.stored if state.step else _begin(plan, rows, state)
            leaf = leaf.detach().to(plan.device).requires_grad_()
            adam = torch.optim.Adam([leaf], lr=plan.optimizer.lr, betas=plan.optimizer.betas)
            if state.step:
                adam.load_state_dict(state.adam)
            while state.step < stage.steps:
                state.step += 1
                for group in adam.param_groups:
                    group["lr"] = plan.optimizer.rate((state.step - 1) / stage.steps)
                state.losses.append(_descend(plan, rows, state, leaf, adam, watcher))
                state.stored, state.adam = leaf.detach(), adam.state_dict()
                made, last = len(state.losses), state.step == stage.steps
                if last or (plan.snapshot_every and made % plan.snapshot_every == 0):
                    image = plan.parametrization.image(leaf).detach()
                    state.snapshots.append((made, image.to("cpu", copy=True)))  # the leaf goes on changing
                if not last:
                    store.reached(number, state)
                bar.advance()
            state.stage, state.step, state.adam = state.stage + 1, 0, None
            if state.stage == len(plan.stages):
                state.stored = None  # all that is left is the last snapshot
            store.reached(number, state, finished=state.stored is None and number == groups - 1)
    return state


def _begin(plan: _Plan, rows: Tensor, state: State) -> Tensor:
    """What is stored at the beginning of a stage: fresh images, or the last ones in the middle of fresh ones."""
    form, stage = plan.parametrization, plan.stages[state.stage]
    if state.stage == 0 and plan.start is not None:
        return form.store(plan.start[rows].to(plan.device, torch.float32))
    like = torch.zeros((), device=plan.device)
    fresh = form.start(plan.random(rows, _FRESH, state.stage), plan.channels, stage.sides, like=like)
    if state.stage == 0:
        return fresh
    last = form.image(state.stored.to(plan.device))
    inner = [side - stage.border for side in stage.sides]
    odd = state.stage % 2  # a border that cannot be halved is larger now on one side, now on the other
    top, left = ((side - part + odd) // 2 for side, part in zip(stage.sides, inner, strict=True))
    images = form.image(fresh)
    images[..., top : top + inner[0], left : left + inner[1]] = F.interpolate(last, inner, mode="bilinear")
    return form.store(images)


def _descend(
    plan: _Plan, rows: Tensor, state: State, leaf: Tensor, adam: torch.optim.Adam, watcher: Watcher
) -> Tensor:
    """One step; returns the targets' losses (n,) before it, on the CPU."""
    steps = plan.stages[state.stage].steps
    moment = Moment(
        plan.random(rows, _STEP, state.stage, state.step),
        plan.random(rows, _STAGE, state.stage),
        (state.step - 1) / steps,
    )
    with torch.enable_grad():
        x = augment(plan.parametrization.image(leaf), plan.augmentations, moment)  # (n, e, c, h, w)
        losses = plan.objective(_seen(plan, watcher, x), rows.to(plan.device))
        scale = _LOSS_SCALE.get(plan.precision, 1.0)
        gradient = None
        if losses.requires_grad:
            (gradient,) = torch.autograd.grad(scale * losses.sum(), leaf, allow_unused=True)
    if gradient is None:
        raise ValueError(f"{plan.objective.name} does not depend on the images in a differentiable way")
    leaf.grad = gradient / scale
    if not (torch.isfinite(losses).all() and torch.isfinite(leaf.grad).all()):
        raise NonFiniteOutput(
            f"the loss or its gradient became NaN or infinite at step {len(state.losses) + 1} ({plan.objective.name})"
        )
    if not state.losses:
        _warn_of_zero_gradients(plan, rows, leaf.grad)
    adam.step()
    with torch.no_grad():
        plan.parametrization.project(leaf)
    images = x.shape[0] * x.shape[1]
    state.passes += Passes(1, 1, images, images)
    return losses.detach().float().cpu()


def _seen(plan: _Plan, watcher: Watcher, x: Tensor) -> dict[str, Tensor]:
    """What the objective reads, with targets and copies as the first two dimensions."""
    dtype = PRECISIONS[plan.precision]
    cast = torch.autocast(plan.device.type, dtype) if dtype else nullcontext()
    own = next((p.dtype for p in plan.model.parameters() if p.is_floating_point()), x.dtype)
    try:
        with cast:
            seen = watcher(x.flatten(0, 1).to(own))
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"the model cannot take images of shape {tuple(x.shape[2:])} ({str(error).rstrip('.')}): where that is for "
            "their size or channels, choose others, or let tk.Classifier(network, size=…) resize them"
        ) from error
    return {name: _by_target(name, value, x.shape[:2], watcher) for name, value in seen.items()}


def _by_target(name: str, value: Tensor, shape: tuple[int, int], watcher: Watcher) -> Tensor:
    """Targets and copies as the first two dimensions in place of images."""
    n = math.prod(shape)
    if value.ndim == 2 and len(value) > n and len(value) % n == 0 and watcher.is_batch_norm(name):
        value = value.unflatten(0, (n, -1)).transpose(1, 2)  # tokens of an image, row by row: (n · t, c) -> (n, c, t)
    if value.ndim == 0 or len(value) != n:
        raise ValueError(
            f"{name} gives {tuple(value.shape)} for {n} images, and its first dimension must be the images: choose "
            "another layer"
        )
    return value.unflatten(0, shape)


def _warn_of_zero_gradients(plan: _Plan, rows: Tensor, gradient: Tensor) -> None:
    dead = rows[(gradient == 0).flatten(1).all(dim=1).cpu()].tolist()
    if dead:
        warnings.warn(
            f"{plan.objective.name} has no gradient at the start of targets {dead[:8]}: what it reads is constant "
            "there, as behind a ReLU that is off; read the layer before the ReLU, or start from other images",
            stacklevel=_outside(),
        )  # fmt: skip


def _outside() -> int:
    """The level of the first caller who is not of this package, for a warning where this is called."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
