"""A training run in progress, as a method sees it: the model, the update, random numbers, and what is left to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import ask
from thesis_kit.casting import PRECISIONS
from thesis_kit.checks import NonFiniteOutput, check_labels, check_logits
from thesis_kit.randomness import ImageRandom, mix_seed
from thesis_kit.training.precision import InPrecision

Term = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
_NOISE = 2  # which stream of the seed a method's random numbers come from; minibatches.py has the others


class Run:
    """What a method works with.

    Args:
        model: in training mode while the run lasts.
        optimizer: its groups hold their peak rate under "peak".
        rate: schedule from progress in [0, 1) to the share of the peak rate.
        updates: weight updates in all; ``done`` counts those made.
        seed: of the random numbers.
        precision: "float32", "float16" or "bfloat16".
        terms: what the loss has beside cross-entropy: functions (model, x, y, logits) -> scalar.

    ``model`` is the network itself, ``passing`` the same weights with their passes in the precision of the updates, and
    ``attacked`` what an attack is given, whose gradients at the images are in that precision too. ``index`` (n,) says
    where the minibatch's images stand in stored data; None in a stream and for a loader.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, rate: Callable, *, updates: int, seed: int,
                 precision: str, terms: Sequence[Term] = ()):  # fmt: skip
        self.model, self.optimizer, self._rate = model, optimizer, rate
        self.updates, self.done, self._seed, self._terms = updates, 0, seed, terms
        self.n_classes: int | None = None  # known after the first forward pass
        self.index: Tensor | None = None
        device, cast = next(model.parameters()).device.type, PRECISIONS[precision] is not None
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "float16")
        scale = self.scaler.get_scale if self.scaler.is_enabled() else None
        self.passing = InPrecision(model, precision) if cast else model  # its loss is scaled in ``descend``
        self.attacked = InPrecision(model, precision, scale) if cast else model

    @property
    def updates_left(self) -> int:
        """Weight updates until the end of training."""
        return self.updates - self.done

    def random(self, x: Tensor) -> ImageRandom:
        """This update's random numbers for the images x."""
        return ImageRandom(mix_seed(self._seed, _NOISE, self.done), torch.arange(len(x), device=x.device))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """What training descends on: mean cross-entropy at x, after one forward pass, and the run's terms."""
        logits = self._logits(x, y)
        value = F.cross_entropy(logits, y)
        for term in self._terms:
            value = value + _evaluated(term, self.passing, x, y, logits)
        return value

    def _logits(self, x: Tensor, y: Tensor) -> Tensor:
        logits = ask(self.passing, x)
        if self.n_classes is None:
            check_logits(logits, len(x))
            check_labels(y, len(x), logits.shape[1])
            self.n_classes = logits.shape[1]
        return logits

    def ascent_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the cross-entropy at x; one forward and one backward pass, no update."""
        x = x.detach().requires_grad_()
        cross_entropy = F.cross_entropy(self._logits(x, y), y)
        (gradient,) = torch.autograd.grad(self.scaler.scale(cross_entropy), x)
        return gradient.nan_to_num_()

    def descend(
        self, x: Tensor, y: Any, *, loss: Callable[[Tensor, Any], Tensor] | None = None, at_input: bool = False
    ) -> Tensor | None:
        """One weight update on (x, y) by one backward pass.

        Args:
            x: inputs. y: targets.
            loss: what to descend on, (x, y) -> scalar, by one forward pass; ``Run.loss`` unless given.
            at_input: return the loss's gradient at x as well, up to a positive factor, from the same backward pass.
        """
        x = x.detach().requires_grad_(at_input)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._rate(self.done / self.updates)
        self.optimizer.zero_grad(set_to_none=True)
        value = (loss or self.loss)(x, y)
        if not torch.isfinite(value):
            raise NonFiniteOutput(f"the loss is {value.item()}")
        self.scaler.scale(value).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.done += 1
        return x.grad.nan_to_num_() if at_input else None


def _evaluated(term: Term, *args: object) -> Tensor:
    """A term's value, which must be one finite number."""
    value = term(*args)
    if not isinstance(value, Tensor) or value.shape != ():
        seen = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"a term of the loss must return one number as a tensor, {term_name(term)} returned {seen}")
    if not torch.isfinite(value):
        raise NonFiniteOutput(f"the term {term_name(term)} is {value.item()}")
    return value


def term_name(term: Term) -> str:
    """A term as messages and checkpoints call it: a function by its name, an object by its settings.

    Nowhere in it is an address, which another process would not have.
    """
    if isinstance(term, partial):
        given = [*map(repr, term.args), *(f"{name}={value!r}" for name, value in term.keywords.items())]
        return f"{term_name(term.func)}({', '.join(given)})"
    if type(term).__repr__ is object.__repr__:
        return f"{type(term).__qualname__} {public_settings(term)}"
    return getattr(term, "__name__", None) or repr(term)


def public_settings(thing: object) -> dict:
    """The attributes of an object whose names do not begin with an underscore."""
    return {name: value for name, value in vars(thing).items() if not name.startswith("_")}
