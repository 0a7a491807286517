"""How accurate a classifier is, and how accurate it stays under attack.

Robust accuracy is the worst case per image over the attacks named: an image counts only if none of them changes its
label. The attacks run in order, each on the images that survived the ones before; since an image's random numbers are
its own, this gives what attacking everything with everything gives, in a fraction of the time.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import scipy
import torch
from torch import Tensor, nn

from thesis_kit.asking import evaluating
from thesis_kit.attacks import apgd, apgd_targeted, pgd, square
from thesis_kit.checks import (
    check_count,
    check_eps,
    check_images,
    check_labels,
    check_logits,
    check_same_device,
    choose,
)
from thesis_kit.data.parts import Part
from thesis_kit.passes import Passes, count_passes
from thesis_kit.progress import Bar, track
from thesis_kit.randomness import ImageRandom

Attack = Callable[..., Tensor]
Data = Part | tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]


def reference_attack(eps: float, *, norm: str = "linf") -> dict[str, Attack]:
    """The book's R: PGD with cross-entropy, 20 steps of ε/4, one random start."""
    check_eps(eps, norm=norm)
    return {"PGD-20": partial(pgd, eps=eps, norm=norm, steps=20, step_size=eps / 4)}


def weak_attack(eps: float, *, norm: str = "linf") -> dict[str, Attack]:
    """An attack as it was common before 2018: cross-entropy, 10 steps of ε/8, one random start."""
    check_eps(eps, norm=norm)
    return {"PGD-10 weak": partial(pgd, eps=eps, norm=norm, steps=10, step_size=eps / 8)}


def strong_attacks(eps: float, *, norm: str = "linf", steps: int = 100, restarts: int = 5, queries: int = 5000) -> dict:
    """The book's R*: PGD with two losses and restarts, APGD-CE, targeted APGD-DLR, and Square without gradients.

    AutoAttack (Croce and Hein 2020) has the last three and FAB, which is left out here.
    """
    check_eps(eps, norm=norm)
    knobs = {"eps": eps, "norm": norm}
    many = {"steps": steps, "step_size": eps / 4, "restarts": restarts}
    return {
        "PGD": partial(pgd, **knobs, **many),
        "PGD margin": partial(pgd, **knobs, **many, loss="margin"),
        "APGD-CE": partial(apgd, **knobs, steps=steps),
        "APGD-DLR targeted": partial(apgd_targeted, **knobs, steps=steps),
        "Square": partial(square, **knobs, queries=queries),
    }


@dataclass(frozen=True)
class AttackOutcome:
    """What one attack did.

    ``survived`` (n,) bool says which images are still classified rightly (after this attack alone if independent, else
    after it and all before it); ``attacked`` counts the images it was run on; ``passes`` and ``seconds`` are its cost.
    """

    name: str
    survived: Tensor
    attacked: int
    passes: Passes
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of all images that survived."""
        return self.survived.double().mean().item()

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of ``accuracy``."""
        return _wilson(self.survived)


@dataclass(frozen=True)
class RobustAccuracy:
    """Accuracy of one classifier, clean and under attack, image by image.

    ``correct`` (n,) bool is the clean outcome, ``attacks`` what each attack did, ``worst`` (n,) bool which images
    survived everything.
    """

    correct: Tensor
    attacks: list[AttackOutcome] = field(default_factory=list)

    def __getitem__(self, name: str) -> AttackOutcome:
        return choose(name, {outcome.name: outcome for outcome in self.attacks}, "attack")

    @property
    def worst(self) -> Tensor:
        """Which images no attack could turn, (n,) bool."""
        worst = self.correct.clone()
        for outcome in self.attacks:
            worst &= outcome.survived
        return worst

    @property
    def clean_accuracy(self) -> float:
        """Share of images classified rightly without attack."""
        return self.correct.double().mean().item()

    @property
    def robust_accuracy(self) -> float:
        """Share of images that survived every attack: the worst case."""
        return self.worst.double().mean().item()

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of ``robust_accuracy``."""
        return _wilson(self.worst)

    def __str__(self) -> str:
        rows = [("no attack", self.correct, "", "")]
        rows += [(a.name, a.survived, f"{_per_image(a):,.0f} passes", f"{a.seconds:.1f} s") for a in self.attacks]
        rows += [("worst case", self.worst, "", "")]
        return "\n".join(
            f"{name:<20} {_percent(outcome)}  {cost:>14} {spent:>8}" for name, outcome, cost, spent in rows
        )


def _wilson(outcome: Tensor) -> tuple[float, float]:
    interval = scipy.stats.binomtest(int(outcome.sum()), len(outcome)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _percent(outcome: Tensor) -> str:
    low, high = _wilson(outcome)
    return f"{100 * outcome.double().mean():5.1f}%  [{100 * low:.1f}, {100 * high:.1f}]"


def _per_image(outcome: AttackOutcome) -> float:
    return (outcome.passes.forward_images + outcome.passes.backward_images) / max(outcome.attacked, 1)


def correct(model: nn.Module, data: Data, *, batch_size: int = 256) -> Tensor:
    """Return which images of ``data`` the model classifies rightly, (n,) bool, in evaluation mode."""
    part = gather(data)
    check_same_device(model, part.x)
    with evaluating(model), torch.no_grad():
        return torch.cat([_right(model, some) for some in _chunks(part, batch_size)])


def accuracy(model: nn.Module, data: Data, *, batch_size: int = 256) -> float:
    """Return the share of images that the model classifies rightly, in evaluation mode."""
    return correct(model, data, batch_size=batch_size).double().mean().item()


def robust_accuracy(
    model: nn.Module,
    data: Data,
    attacks: Mapping[str, Attack],
    *,
    independent: bool = False,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool | None = None,
) -> RobustAccuracy:
    """Measure accuracy under an ordered list of attacks; an image counts only if it survives all of them.

    Args:
        model: pixels in [0, 1] to logits; evaluated in evaluation mode, each module's mode restored.
        data: a ``Part``, a pair (x, y), or batches (x, y) such as a DataLoader, which are gathered first.
        attacks: name to a function (model, x, y, *, generator) -> x_adv, for instance
            ``evaluation.strong_attacks(8 / 255)`` or ``{"PGD": partial(attacks.pgd, eps=8 / 255)}``.
        independent: attack all images with every attack, to compare attacks; otherwise only the survivors so far.
            The worst case is the same (up to rounding that depends on the batch).
        batch_size: images per call of an attack.
        seed: with an image's position in ``data`` and the attack's name it fixes the attack's random numbers.
        progress: show a bar; None follows the session.

    Returns:
        A ``RobustAccuracy``: clean, per attack, worst case, with intervals and costs; ``print`` it for a table.

    Raises:
        ValueError, TypeError: images, labels or model output that are not what they should be.
    """
    part = gather(data)
    check_same_device(model, part.x)
    clean = correct(model, part, batch_size=batch_size)
    alive, outcomes = clean.clone(), []
    with evaluating(model), track("attacking", len(attacks) * len(part), progress) as bar:
        for name, attack in attacks.items():
            bar.describe(name)
            among = torch.ones_like(alive) if independent else alive
            outcome = _attack_all(model, part, name, attack, among, batch_size, seed, bar)
            outcome = replace(outcome, survived=outcome.survived & clean)  # an attack may turn a wrong label right
            alive = alive & outcome.survived
            outcomes.append(outcome)
    return RobustAccuracy(clean, outcomes)


def _attack_all(
    model: nn.Module, part: Part, name: str, attack: Attack, among: Tensor, batch_size: int, seed: int, bar: Bar
) -> AttackOutcome:
    """Run one attack on the images ``among``; the others count as not surviving."""
    started, survived, passes = time.monotonic(), torch.zeros_like(among), Passes()
    random = ImageRandom(seed, torch.arange(len(part), device=part.x.device)).fork(zlib.crc32(name.encode()))
    for index in among.nonzero()[:, 0].split(batch_size):
        some = part[index]
        with count_passes(model) as spent:
            x_adv = attack(model, some.x, some.y, generator=random[index])
        with torch.no_grad():
            survived[index] = _right(model, Part(x_adv, some.y, some.ids))
        passes += spent
        bar.advance(len(index))
    bar.advance(len(part) - int(among.sum()))
    return AttackOutcome(name, survived, int(among.sum()), passes, time.monotonic() - started)


def gather(data: Data) -> Part:
    """Any form of data as one ``Part``."""
    if not isinstance(data, Part):
        if not (isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor)):
            batches = list(data)
            if not batches:
                raise ValueError("there are no images to evaluate on: the data are empty")
            data = tuple(torch.cat(column) for column in zip(*(batch[:2] for batch in batches), strict=True))
        data = Part(*data, torch.arange(len(data[0]), device=data[0].device))
    if len(data.x) == 0:
        raise ValueError("there are no images to evaluate on: the data are empty")
    check_images(data.x)
    check_labels(data.y, len(data.x))
    return data


def _chunks(part: Part, batch_size: int) -> Iterator[Part]:
    check_count(batch_size, what="batch_size")
    for start in range(0, len(part), batch_size):
        yield part[start : start + batch_size]


def _right(model: nn.Module, part: Part) -> Tensor:
    logits = model(part.x)
    check_logits(logits, len(part))
    check_labels(part.y, len(part), logits.shape[1])
    return logits.argmax(dim=1) == part.y
