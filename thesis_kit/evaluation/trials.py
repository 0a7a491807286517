"""What a list of attacks may look like, and what an attack's examples must be before they count."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from thesis_kit.attacks.norms import NORMS
from thesis_kit.checks import NonFiniteOutput, check_eps, choose

Attack = Callable[..., Tensor]
_SLACK = 1e-5  # of the radius and of a pixel: what another library's rounding may exceed


def named_attacks(
    attacks: Mapping[str, Attack] | Iterable[Attack] | Attack, eps: float | None, norm: str
) -> dict[str, Attack]:
    """Attacks by name; those that take ``eps`` and ``norm`` and do not bring them are given them.

    Raises:
        TypeError: something in the list is no function. ValueError: an attack wants an eps and there is none.
    """
    if eps is not None:
        choose(norm, NORMS, "norm")
        check_eps(eps, norm=norm)
    if not isinstance(attacks, Mapping):
        several = [attacks] if callable(attacks) else list(attacks)
        attacks = {}
        for attack in several:
            name = _name(attack)
            fresh = itertools.chain([name], (f"{name} {count}" for count in itertools.count(2)))
            attacks[next(one for one in fresh if one not in attacks)] = attack
    for name, attack in attacks.items():
        if not callable(attack):
            raise TypeError(f"an attack is a function (model, x, y, *, generator) -> x_adv, {name} is {attack!r}")
    return {name: _with_ball(name, attack, eps, norm) for name, attack in attacks.items()}


def _name(attack: object) -> str:
    while isinstance(attack, partial):
        attack = attack.func
    return getattr(attack, "__name__", None) or type(attack).__name__


def _with_ball(name: str, attack: Attack, eps: float | None, norm: str) -> Attack:
    """The attack with the ball it lacks, where its signature asks for one."""
    try:
        wanted = inspect.signature(attack).parameters
    except (TypeError, ValueError):  # of some builtins and compiled functions nothing is known
        return attack
    missing = "eps" in wanted and wanted["eps"].default is inspect.Parameter.empty
    if missing and eps is None:
        raise ValueError(f"the attack {name} needs a radius: give eps, or partial({name}, eps=…)")
    if eps is None or "eps" in _settings(attack) or "eps" not in wanted:
        return attack if eps is None or "eps" in wanted else _Held(attack, eps, norm)
    ball = {"eps": eps, "norm": norm} if "norm" in wanted and "norm" not in _settings(attack) else {"eps": eps}
    return partial(attack, **ball)


class _Held:
    """An attack that knows no ball, with the one that its examples are held against."""

    def __init__(self, attack: Attack, eps: float, norm: str):
        self.attack, self.keywords = attack, {"eps": eps, "norm": norm}

    def __call__(self, *args: object, **knobs: object) -> Tensor:
        return self.attack(*args, **knobs)


def _settings(attack: object) -> dict:
    return dict(getattr(attack, "keywords", {}))


def _default_norm(attack: object) -> object:
    """What an attack's norm is unless given; ℓ∞, the weakest demand, where it does not say."""
    try:
        norm = inspect.signature(attack).parameters["norm"].default
    except (TypeError, ValueError, KeyError):
        return "linf"
    return norm if isinstance(norm, str) else "linf" if norm is inspect.Parameter.empty else None


def check_examples(name: str, attack: Attack, x_adv: Tensor, x: Tensor) -> None:
    """Require examples of the images' shape, with pixels in [0, 1], in the ball that the attack was given.

    Raises:
        ValueError, TypeError: naming the attack, what was seen and what to do.
    """
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        seen = tuple(x_adv.shape) if isinstance(x_adv, Tensor) else type(x_adv).__name__
        raise ValueError(f"the attack {name} must return images of shape {tuple(x.shape)}, got {seen}")
    if not torch.isfinite(x_adv).all():
        raise NonFiniteOutput(f"the attack {name} returned NaN or infinite pixels: look for divisions by zero")
    low, high = (bound.item() for bound in torch.aminmax(x_adv.detach()))
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise ValueError(
            f"the attack {name} returned pixels in [{low:.4g}, {high:.4g}], outside [0, 1]: clip its examples, for no "
            "image looks like that"
        )
    ball = _settings(attack)
    eps, norm = ball.get("eps"), ball.get("norm", _default_norm(attack))
    if not isinstance(eps, int | float) or norm not in NORMS:
        return
    farthest = NORMS[norm].size(x_adv.detach().double() - x.double()).max().item()
    if farthest > eps * (1 + _SLACK) + _SLACK:
        raise ValueError(
            f"the attack {name} moved an image by {farthest:.4g} ({norm}), further than its eps of {eps:.4g}: project "
            "its examples onto the ball"
        )
