"""How the package asks a model that it did not make: nothing of the caller's is changed, and nothing is assumed.

A foreign network may write into its input, keep statistics, want another precision, or be a plain function. Whoever
calls one goes through ``ask``, which hands it a copy of its own, inside a block that gives back what evaluation
touches: ``evaluating`` for passes, ``borrowed`` for gradients at the input.
"""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Model = nn.Module | Callable[[Tensor], Tensor]


def ask(model: Model, x: Tensor, *others: Tensor) -> Any:
    """The model's answer to a private copy of ``x``, which it may overwrite; gradients reach ``x`` through the copy.

    ``others``, such as token ids, are copied as they are.

    The copy has the precision of the model's first parameter, and an answer in a narrower precision than ``x`` is
    widened to it, so that float64 images meet a float32 model, and float32 images a bfloat16 one.
    """
    dtype = next((p.dtype for p in parameters(model) if p.is_floating_point()), x.dtype)
    with _unwarned(model):
        answer = model(x.to(dtype, copy=True), *(other.clone() for other in others))
    if not isinstance(answer, Tensor) or not answer.is_floating_point():
        return answer  # whoever reads it says what is wrong with it
    return answer.to(torch.promote_types(answer.dtype, x.dtype))


_OTHERS = (torch.OutOfMemoryError, NotImplementedError, RecursionError)  # errors that are no fault of the inputs


class CannotTake(ValueError):
    """A model's own code failed at the inputs that it was given."""


@contextmanager
def taking(x: Tensor) -> Iterator[None]:
    """What a model's own code raises inside the block becomes a sentence about the inputs that it cannot take.

    Sentences of the package and what is no fault of the inputs, such as a full memory, pass as they are.

    Raises:
        CannotTake: with the model's own error as its cause.
    """
    try:
        yield
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        if isinstance(error, _OTHERS) or re.search(r"allocate memory|CUDA error", str(error)) or _is_ours(error):
            raise
        said = " ".join(str(error).split()).rstrip(".") or "it does not say why"
        floating = x.is_floating_point()
        images = x.ndim == 4 and floating
        seen = f"images of shape {tuple(x.shape[1:])}" if images else f"inputs of shape {tuple(x.shape)}"
        if images:
            advice = "their size or channels, choose others, or let tk.Classifier(network, size=…) resize them"
        elif floating or isinstance(error, IndexError):
            advice = "their shape or values, choose others"
        else:
            advice = "their shape or kind of number, choose others or convert them with x.float()"
        raise CannotTake(
            f"the model cannot take {seen}{'' if floating else f', {x.dtype}'} ({said}): where that is for {advice}"
        ) from error


def _is_ours(error: Exception) -> bool:
    """Whether it is a sentence of this package about a value, raised by a line of its own."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, ValueError) and frames[-1].f_globals.get("__name__", "").startswith("thesis_kit.")


@contextmanager
def _unwarned(model: Model) -> Iterator[None]:
    """Without the compiler's warning that a copy is no leaf of the graph, which it says while it traces a model."""
    compiled = sys.modules.get("torch._dynamo.eval_frame")
    if compiled is None or not isinstance(model, nn.Module) or not torch.is_grad_enabled():  # then copies are leaves
        yield
        return
    if not any(isinstance(module, compiled.OptimizedModule) for module in model.modules()):
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        yield


def parameters(model: Model) -> Iterator[nn.Parameter]:
    """The model's parameters; a function has none."""
    return model.parameters() if isinstance(model, nn.Module) else iter(())


def device_of(model: Model) -> torch.device | None:
    """The device of the model's parameters; None where it has none."""
    return next((parameter.device for parameter in parameters(model)), None)


def as_module(model: Model) -> nn.Module:
    """The model itself, or a module around a plain function from images to logits.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(model, nn.Module):
        return model
    if not callable(model) or isinstance(model, type):
        raise TypeError(
            f"model must be a torch.nn.Module or a function from images to logits, got {model!r}: tk.build(name) makes "
            "one by its name"
        )
    return _Function(model)


class _Function(nn.Module):
    """A plain function from images to logits as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class KeepMode(nn.Module):
    """A model that is attacked in the mode it is in: for training that wants batch statistics in its attacks.

    ``evaluating`` and ``borrowed`` leave its mode and its buffers alone, so that running statistics move with every
    pass of the attack, as in most released code of adversarial training.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """What the model answers."""
        return self.model(x)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode inside the block; each module's own mode and its buffers come back after it."""
    if isinstance(model, KeepMode):
        yield model
        return
    modes = [(module, module.training) for module in model.modules()]
    kept = [_kept(module, name) for module in model.modules() for name in module._buffers]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
        for give_back in kept:
            give_back()


def _kept(module: nn.Module, name: str) -> Callable[[], None]:
    """What gives a buffer back as it is now."""
    buffer = module._buffers[name]
    if buffer is None:
        return lambda: None
    version, value = _version(buffer), buffer.detach().clone()

    def give_back() -> None:
        if module._buffers.get(name) is buffer and version is not None and buffer._version == version:
            return
        writable = buffer.shape == value.shape and (torch.is_inference_mode_enabled() or not buffer.is_inference())
        if writable:
            with torch.no_grad():
                buffer.copy_(value)
        module._buffers[name] = buffer if writable else value

    return give_back


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written to; unknown of those made in inference mode."""
    return None if tensor.is_inference() else tensor._version


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No gradients for the parameters inside the block; their flags come back as they were."""
    flagged = [p for p in model.parameters() if p.requires_grad]
    for parameter in flagged:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in flagged:
            parameter.requires_grad_(True)


@contextmanager
def borrowed(model: nn.Module, what: str) -> Iterator[None]:
    """The model to be asked for gradients at its input: in evaluation mode, with frozen parameters, gradients on.

    Everything comes back as it was found. ``what`` needs them, for the error.

    Raises:
        ValueError: as ``gradients``.
    """
    with gradients(what, model), evaluating(model), frozen(model):
        yield


@contextmanager
def gradients(what: str, model: nn.Module | None = None) -> Iterator[None]:
    """Gradients are on inside the block, whatever the caller has set; ``what`` needs them, for the error.

    Raises:
        ValueError: torch.inference_mode() is on, which no block inside can leave for the tensors made in it; or the
            model was made there.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(f"{what} needs gradients, which torch.inference_mode() forbids: call it outside of that block")
    if model is not None and any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(
            f"{what} needs gradients, and the model was made inside torch.inference_mode(): make or load it outside"
        )
    with torch.enable_grad():
        yield


def plain(x: Tensor) -> Tensor:
    """The same numbers without a graph, as a tensor that gradients may be asked of."""
    return x.detach().clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x.detach()
