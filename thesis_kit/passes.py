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


@dataclass
class Passes:
    """How often a model was run: ``forward`` and ``backward`` calls, and the images they carried."""

    forward: int = 0
    backward: int = 0
    forward_images: int = 0
    backward_images: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


class Counter:
    """A forward hook that counts passes and changes nothing; a copy of the model has a copy that counts for itself."""

    def __init__(self, passes: Passes):
        self.passes = passes

    def __call__(self, module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(output, tuple | list) and output:
            output = output[0]  # of an image–text model: the images' features
        if not isinstance(output, torch.Tensor):
            return  # of no tensor, whoever reads it complains
        self.passes.forward += 1
        self.passes.forward_images += len(output)
        if output.requires_grad:
            output.register_hook(self._backward)

    def _backward(self, gradient: torch.Tensor) -> None:
        self.passes.backward += 1
        self.passes.backward_images += len(gradient)

    def __deepcopy__(self, memo: dict) -> Counter:
        return Counter(Passes())


@contextmanager
def count_passes(model: nn.Module) -> Iterator[Passes]:
    """Count the model's forward and backward passes inside the block; the hook is gone after it.

    A backward pass is counted when a gradient reaches the model's output, once for each forward pass it belongs to.
    """
    passes = Passes()
    handle = model.register_forward_hook(Counter(passes))
    try:
        yield passes
    finally:
        handle.remove()
