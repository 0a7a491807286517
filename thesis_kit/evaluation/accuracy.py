"""Accuracy: which images a classifier names rightly."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from thesis_kit.asking import Model, as_module, ask, device_of, evaluating
from thesis_kit.checks import check_count, check_labels, check_logits, check_same_device
from thesis_kit.data.forms import Labelled, windows
from thesis_kit.data.parts import Part
from thesis_kit.models.seen import check_has_classes


def correct(model: Model, data: Labelled, *, batch_size: int = 256) -> Tensor:
    """Return which images of ``data`` the model classifies rightly, (n,) bool, in evaluation mode.

    Args:
        model: pixels in [0, 1] to logits, a module or a function; left as found.
        data: a ``Part``, a pair (x, y) of tensors or arrays, a map-style ``Dataset``, or minibatches (x, y) such as a
            ``DataLoader`` gives; what is loaded goes to the model's device, and never lies in memory as a whole.
        batch_size: images a pass.

    Raises:
        ValueError, TypeError: images, labels or model output that are not what they should be.

    Examples:
        >>> tk.evaluation.correct(model, digits)
        tensor([True, True, True, True])
    """
    model = as_module(model)
    check_count(batch_size, what="batch_size"), check_has_classes(model)
    found = []
    with evaluating(model), torch.no_grad():
        for part in windows(data, batch_size, device_of(model)):
            check_same_device(model, part.x)
            found += [right(model, some) for some in chunks(part, batch_size)]
    return torch.cat(found)


def accuracy(model: Model, data: Labelled, *, batch_size: int = 256) -> float:
    """Return the share of images that the model classifies rightly, in evaluation mode; arguments as ``correct``.

    Examples:
        >>> tk.evaluation.accuracy(model, digits)
        1.0
    """
    return correct(model, data, batch_size=batch_size).double().mean().item()


def right(model: nn.Module, part: Part) -> Tensor:
    """Which images of a part are classified rightly, in one pass and the model's mode: (n,) bool."""
    logits = ask(model, part.x)
    check_logits(logits, len(part))
    check_labels(part.y, len(part), logits.shape[1])
    return logits.argmax(dim=1) == part.y


def chunks(part: Part, size: int) -> Iterator[Part]:
    """The part cut into pieces of ``size`` images, in order."""
    for start in range(0, len(part), size):
        yield part[start : start + size]

