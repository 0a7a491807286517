"""The cost of training and attacking in its own unit: passes through the network.

Counted from the model's own calls, so no method can forget to report one. Wall time depends on the machine; passes
do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook


@dataclass
class Passes:
    """How often a model was run: ``forward`` and ``backward`` calls, and the images they carried."""

    forward: int = 0
    backward: int = 0
    forward_images: int = 0
    backward_images: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@contextmanager
def count_passes(model: nn.Module) -> Iterator[Passes]:
    """Count the model's forward and backward passes inside the block; the hooks are gone after it.

    A backward pass is counted when a gradient reaches the model's output, once for each forward pass it belongs to.
    """
    passes = Passes()

    def on_backward(gradient: torch.Tensor) -> None:
        passes.backward += 1
        passes.backward_images += len(gradient)

    def on_forward(module: nn.Module, inputs: tuple, output: object) -> None:
        if module is not model or not isinstance(output, torch.Tensor):
            return  # of no tensor, whoever reads it complains
        passes.forward += 1
        passes.forward_images += len(output)
        if output.requires_grad:
            output.register_hook(on_backward)

    handle = register_module_forward_hook(on_forward)  # on no module, so that a copy made meanwhile carries nothing
    try:
        yield passes
    finally:
        handle.remove()
