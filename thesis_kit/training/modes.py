"""What training sets on a model beside its weights, and gives back: modes, ``requires_grad``, gradients.

And what becomes of BatchNorm where a minibatch is a single image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thesis_kit.asking import ask, evaluating


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


@contextmanager
def room_for_one(model: nn.Module, x: Tensor) -> Iterator[None]:
    """For a single image, BatchNorm layers that see one value a channel are in evaluation mode inside the block.

    Such a value has no variance, and torch refuses it; its layer normalizes by running statistics instead. Other
    minibatches and layers are left alone.

    Raises:
        ValueError: a layer of this kind keeps no running statistics.
    """
    lonely = _with_one_value(model, x) if len(x) == 1 else []
    for layer in lonely:
        layer.eval()
    try:
        yield
    finally:
        for layer in lonely:
            layer.train()


def _with_one_value(model: nn.Module, x: Tensor) -> list[_BatchNorm]:
    """The BatchNorm layers in training mode that see one value a channel, found by a pass in evaluation mode."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    if not layers:
        return []
    seen: list[_BatchNorm] = []

    def look(layer: nn.Module, inputs: tuple) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            if layer.running_mean is None:
                raise ValueError(
                    "a minibatch of one image has no batch statistics, and the network keeps no running ones: choose a "
                    "batch_size that leaves no image alone"
                )
            seen.append(layer)

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with evaluating(model), torch.no_grad():
            ask(model, x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def set_modes(model: nn.Module, training: bool, frozen: Iterable[nn.Module | nn.Parameter] = ()) -> None:
    """Training or evaluation mode for the model, evaluation mode for what is frozen."""
    model.train(training)
    for part in frozen:
        if isinstance(part, nn.Module):
            part.eval()
