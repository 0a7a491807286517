"""What a function may be given, and the sentence it answers with otherwise.

Every public function of the package calls these before it computes anything, so that a wrong pixel range, label or
name is reported where it was made: what was seen, and what to do. All errors are ``ValueError`` or ``TypeError``.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from thesis_kit.names import UnknownName as UnknownName
from thesis_kit.names import check_count as check_count
from thesis_kit.names import choose as choose


class NonFiniteOutput(ValueError):
    """A model or loss gave NaN or infinity, so that nothing computed from it would mean anything."""


def check_images(x: Tensor) -> None:
    """Require a float tensor of shape (n, c, h, w) whose pixels are finite and lie in [0, 1]."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        seen = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"images must be a floating-point tensor, got {seen}: convert with x.float() / 255 or alike")
    if x.ndim != 4:
        raise ValueError(f"images must have shape (n, c, h, w), got {tuple(x.shape)}: add the missing dimensions")
    if x.numel() == 0:
        return
    low, high = (bound.item() for bound in torch.aminmax(x))
    if math.isnan(low) or math.isnan(high):
        raise ValueError("images contain NaN: look at how they were loaded")
    if low >= 0 and 10 < high <= 255:
        raise ValueError(f"pixels must lie in [0, 1], got [{low:.3g}, {high:.3g}]: divide by 255")
    if low < 0 or high > 1:
        raise ValueError(
            f"pixels must lie in [0, 1], got [{low:.3g}, {high:.3g}]: put the normalization inside the model "
            "(models.Classifier does it) and remove Normalize from the data's transforms"
        )


def check_finite(x: Tensor, form: str, *, what: str) -> None:
    """Require a floating-point tensor of finite numbers, with as many dimensions as ``form`` names, as in "(n, u)"."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        seen = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{what} must be a floating-point tensor {form}, got {seen}: convert with torch.as_tensor(…).float()"
        )
    if x.ndim != form.count(",") + 1:
        raise ValueError(f"{what} must have shape {form}, got {tuple(x.shape)}: flatten it, or add what is missing")
    if not torch.isfinite(x).all():
        raise NonFiniteOutput(f"{what} contain NaN or infinity: check the model's weights and inputs")


def check_labels(y: Tensor, n: int, n_classes: int | None = None, *, what: str = "labels") -> None:
    """Require an int64 tensor of shape (n,), with values in [0, n_classes) where the number of classes is known."""
    if not isinstance(y, Tensor) or y.dtype != torch.int64:
        seen = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"{what} must be an int64 tensor, got {seen}: convert with y.long()")
    if y.shape != (n,):
        raise ValueError(f"{what} must have shape ({n},), one class index an image, got {tuple(y.shape)}")
    if n and n_classes is not None:
        low, high = (bound.item() for bound in torch.aminmax(y))
        if low < 0 or high >= n_classes:
            raise ValueError(
                f"{what} must lie in [0, {n_classes - 1}], for the model has {n_classes} outputs; got {low} to {high}"
            )


def check_logits(logits: Tensor, n: int) -> None:
    """Require finite logits of shape (n, k) with at least two classes."""
    check_form_of_logits(logits, n)
    if logits.shape[1] < 2:
        raise ValueError("the model has one output: a classifier needs at least two classes")
    if not torch.isfinite(logits).all():
        raise NonFiniteOutput(
            "the model returned NaN or infinite logits: check its weights, its input range and its precision"
        )


def check_form_of_logits(logits: object, n: int) -> None:
    """Require a tensor of shape (n, k), whatever its numbers."""
    if isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[0] == n:
        return
    seen, advice = _described(logits)
    raise ValueError(f"a classifier must return logits of shape ({n}, k) for {n} images, got {seen}: {advice}")


def _described(output: object) -> tuple[str, str]:
    """What a network returned in place of logits, and what to do about it."""
    if isinstance(output, Tensor):
        advice = "reduce its maps or tokens to one row an image" if output.ndim > 2 else "return one row an image"
        return str(tuple(output.shape)), f"{advice}, in a small nn.Module around the network"
    kind = type(output).__name__
    if isinstance(output, Mapping):
        key = "logits" if "logits" in output else next(iter(output), "logits")
        seen, place = f"{kind} with the keys {', '.join(map(str, output))}", f"[{key!r}]"
    elif isinstance(output, tuple | list):
        seen, place = f"{kind} of {len(output)}", "[0]"
    else:
        seen, place = kind, ".logits" if hasattr(output, "logits") else " of it"
    return seen, f"wrap it in an nn.Module whose forward returns network(x){place}"


def check_eps(eps: float, *, what: str = "eps", norm: str | None = None) -> None:
    """Require a finite radius of at least zero, and in ℓ∞ one of at most the whole range of a pixel."""
    if not (isinstance(eps, numbers.Real) and math.isfinite(eps) and eps >= 0):
        raise ValueError(f"{what} must be a finite number of at least 0, got {eps}")
    if norm == "linf" and eps > 1:
        raise ValueError(
            f"{what} = {eps:g} is more than the whole range of a pixel, [0, 1]: for {eps:g} gray levels of 255 give "
            f"{eps:g} / 255"
        )


def check_path(path: str | os.PathLike, *, what: str) -> None:
    """Require the path of a file."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{what} must be the path of a file, got {path!r}")


def check_same_device(model: nn.Module, x: Tensor) -> None:
    """Require the images on the device of the model's parameters."""
    parameter = next(model.parameters(), None)
    if parameter is not None and parameter.device != x.device:
        raise ValueError(
            f"the model is on {parameter.device} and the images are on {x.device}: move one with .to(device)"
        )
