"""What training sets on a model beside its weights, and gives back: modes, ``requires_grad``, gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def as_found(model: nn.Module) -> Iterator[None]:
    """Give back every module's mode and every parameter's flag after the block; what was trained has no gradient."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            if parameter.requires_grad:
                parameter.grad = None
            parameter.requires_grad_(flag)


def freeze(parts: Iterable[nn.Module | nn.Parameter]) -> None:
    """No gradients for these modules and parameters."""
    for part in parts:
        part.requires_grad_(False)


def set_modes(model: nn.Module, training: bool, frozen: Iterable[nn.Module | nn.Parameter] = ()) -> None:
    """Training or evaluation mode for the model, evaluation mode for what is frozen."""
    model.train(training)
    for part in frozen:
        if isinstance(part, nn.Module):
            part.eval()
