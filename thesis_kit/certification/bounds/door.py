"""The check at the door: a model's steps must compute what the model computes, or nothing is bounded.

Steps are read from modules and code by rules that a model could break in ways nobody has thought of. So before bounds
are given, the steps and the model answer the same images, those given and a few random ones of their boxes, and must
agree within rounding. How large rounding is, is measured: by the steps in the model's precision and in double.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from thesis_kit.asking import evaluating, parameters
from thesis_kit.certification.bounds.plain import UnsupportedLayer
from thesis_kit.certification.bounds.tracing import Network, trace
from thesis_kit.checks import check_logits
from thesis_kit.passes import Counter

_RANDOM = 8  # random points in all
_ROUNDINGS = 16  # what is measured at a few points may be so many times larger at others


@torch.no_grad()
def check_agreement(model: nn.Module, network: Network, x: Tensor, lower: Tensor, upper: Tensor) -> None:
    """Require that the steps answer images and random points between two corners as the model does.

    The model gets private copies in evaluation mode; its mode, its buffers and the random state come back, and no
    passes are counted.

    Raises:
        UnsupportedLayer: they differ by more than rounding. ValueError: the answer is no logits.
    """
    if len(x) == 0:
        return
    some = _points(lower, upper)
    points = torch.cat([some, x.detach()])
    dtype = next((p.dtype for p in parameters(model) if p.is_floating_point()), x.dtype)
    given = _answer(model, points.to(dtype, copy=True))
    check_logits(given, len(points))
    own = (network if dtype == x.dtype else trace(model, points.to(dtype))).value(points.to(dtype))
    size = given.abs().max().double()
    apart = (given.double() - own.double()).abs().max() if own.shape == given.shape else torch.tensor(torch.inf)
    allowed = _ROUNDINGS * (_rounding(model, some, own[: len(some)]) + torch.finfo(dtype).eps * size)
    if not apart <= allowed:
        raise UnsupportedLayer(
            f"no bounds are known for the model: its layers compute logits that are {apart:.2g} from what it answers, "
            f"where rounding explains {allowed:.2g}, so something else than its layers acts on its output"
        )


def _points(lower: Tensor, upper: Tensor) -> Tensor:
    """Random points of a few boxes, every other one a corner."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.linspace(0, len(lower) - 1, _RANDOM).round().long().to(lower.device)
    share = torch.rand(_RANDOM, *lower.shape[1:], generator=generator, dtype=torch.float64)
    share[::2] = share[::2].round()
    return torch.lerp(lower[rows].detach(), upper[rows].detach(), share.to(lower))


def _rounding(model: nn.Module, points: Tensor, own: Tensor) -> Tensor | float:
    """How far the steps' answers are from those in double precision."""
    try:
        exact = trace(model, points.double()).value(points.double())
    except UnsupportedLayer:  # code that insists on another precision
        return torch.finfo(own.dtype).eps * own.abs().max().double() * 4
    return (own.double() - exact).abs().max()


def _answer(model: nn.Module, x: Tensor) -> Tensor:
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices), evaluating(model), _uncounted(model):
        return model(x)


@contextmanager
def _uncounted(model: nn.Module) -> Iterator[None]:
    """No passes are counted inside the block."""
    tables = [module._forward_hooks for module in model.modules()]
    kept = [dict(table) for table in tables]
    for table in tables:
        for key in [key for key, hook in table.items() if isinstance(hook, Counter)]:
            del table[key]
    try:
        yield
    finally:
        for table, hooks in zip(tables, kept, strict=True):
            table.clear()
            table.update(hooks)
