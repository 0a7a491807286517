"""The steps of a synthesis: some targets go through all stages together, from where a checkpoint has them.

Random numbers are a target's own, the loss is a sum over targets, and Adam works number by number, so that no target
acts on another.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from thesis_kit.casting import autocast
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.passes import Passes
from thesis_kit.progress import Bar
from thesis_kit.recording.watching import Watcher
from thesis_kit.synthesis.augmentations import Moment, augment
from thesis_kit.synthesis.plan import FRESH, STAGE, STEP, Plan, outside
from thesis_kit.synthesis.store import State, Store

_LOSS_SCALE = {"float16": 2.0**10}  # so that small gradients do not vanish; taken out again before the step


def run(plan: Plan, rows: Tensor, store: Store, number: int, groups: int, bar: Bar) -> State:
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


def _begin(plan: Plan, rows: Tensor, state: State) -> Tensor:
    """What is stored at the beginning of a stage: fresh images, or the last ones in the middle of fresh ones."""
    form, stage = plan.parametrization, plan.stages[state.stage]
    if state.stage == 0 and plan.start is not None:
        return form.store(plan.start[rows].to(plan.device, torch.float32))
    like = torch.zeros((), device=plan.device)
    fresh = form.start(plan.random(rows, FRESH, state.stage), plan.channels, stage.sides, like=like)
    if state.stage == 0:
        return fresh
    last = form.image(state.stored.to(plan.device))
    return form.store(form.grow(last, form.image(fresh), stage.border, state.stage % 2))


def _descend(
    plan: Plan, rows: Tensor, state: State, leaf: Tensor, adam: torch.optim.Adam, watcher: Watcher
) -> Tensor:
    """One step; returns the targets' losses (n,) before it, on the CPU."""
    steps = plan.stages[state.stage].steps
    moment = Moment(
        plan.random(rows, STEP, state.stage, state.step),
        plan.random(rows, STAGE, state.stage),
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


def _seen(plan: Plan, watcher: Watcher, x: Tensor) -> dict[str, Tensor]:
    """What the objective reads, with targets and copies as the first two dimensions."""
    own = next((p.dtype for p in plan.model.parameters() if p.is_floating_point()), x.dtype)
    with autocast(plan.precision, plan.device):
        seen = watcher(plan.parametrization.to_input(x.flatten(0, 1)).to(own))
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


def _warn_of_zero_gradients(plan: Plan, rows: Tensor, gradient: Tensor) -> None:
    dead = rows[(gradient == 0).flatten(1).all(dim=1).cpu()].tolist()
    if dead:
        warnings.warn(
            f"{plan.objective.name} has no gradient at the start of targets {dead[:8]}: what it reads is constant "
            "there, as behind a ReLU that is off; read the layer before the ReLU, or start from other images",
            stacklevel=outside(),
        )  # fmt: skip
