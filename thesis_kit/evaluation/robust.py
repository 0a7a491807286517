"""How accurate a classifier is, and how accurate it stays under attack.

Robust accuracy is the worst case per image over the attacks named: an image counts only if none of them changes its
label. The attacks run in order, each on the images that survived the ones before; since an image's random numbers are
its own, this gives what attacking everything with everything gives, in a fraction of the time.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import scipy
import torch
from torch import Tensor, nn

from thesis_kit.asking import Model, as_module, device_of, evaluating
from thesis_kit.attacks import apgd, apgd_targeted, fab_targeted, pgd, square
from thesis_kit.checks import check_count, check_eps, check_same_device, choose
from thesis_kit.data.forms import Labelled, in_memory, is_dataset, windows
from thesis_kit.data.parts import Part
from thesis_kit.evaluation.accuracy import correct, right
from thesis_kit.evaluation.kept_outcomes import Keeper, keeping
from thesis_kit.evaluation.trials import Attack, check_examples, named_attacks
from thesis_kit.files import Saved
from thesis_kit.files.tensors import bits, from_bits
from thesis_kit.passes import Passes, count_passes
from thesis_kit.progress import Bar, track
from thesis_kit.randomness import ImageRandom


def reference_attack(eps: float, *, norm: str = "linf") -> dict[str, Attack]:
    """The book's R: PGD with cross-entropy, 20 steps of ε/4, one random start.

    Examples:
        >>> list(tk.evaluation.reference_attack(8 / 255))
        ['PGD-20']
    """
    check_eps(eps, norm=norm)
    return {"PGD-20": partial(pgd, eps=eps, norm=norm, steps=20, step_size=eps / 4)}


def weak_attack(eps: float, *, norm: str = "linf") -> dict[str, Attack]:
    """An attack as it was common before 2018: cross-entropy, 10 steps of ε/8, one random start.

    Examples:
        >>> list(tk.evaluation.weak_attack(8 / 255))
        ['PGD-10 weak']
    """
    check_eps(eps, norm=norm)
    return {"PGD-10 weak": partial(pgd, eps=eps, norm=norm, steps=10, step_size=eps / 8)}


def strong_attacks(eps: float, *, norm: str = "linf", steps: int = 100, restarts: int = 5, queries: int = 5000) -> dict:
    """The book's R*: PGD with two losses and restarts, APGD-CE, targeted APGD-DLR, and Square without gradients; in ℓ₂
    targeted FAB too.

    AutoAttack (Croce and Hein 2020) has the last three and FAB-T. In ℓ∞ that is left out here: on nine networks it
    turned none of the 1,282 images that the others had left, while in ℓ₂ many fall to nothing else.

    Examples:
        >>> list(tk.evaluation.strong_attacks(8 / 255))
        ['PGD', 'PGD margin', 'APGD-CE', 'APGD-DLR targeted', 'Square']
    """
    check_eps(eps, norm=norm)
    knobs = {"eps": eps, "norm": norm}
    many = {"steps": steps, "step_size": eps / 4, "restarts": restarts}
    found = {
        "PGD": partial(pgd, **knobs, **many),
        "PGD margin": partial(pgd, **knobs, **many, loss="margin"),
        "APGD-CE": partial(apgd, **knobs, steps=steps),
        "APGD-DLR targeted": partial(apgd_targeted, **knobs, steps=steps),
    }
    if norm == "l2":
        found["FAB targeted"] = partial(fab_targeted, **knobs, steps=steps)
    return {**found, "Square": partial(square, **knobs, queries=queries)}


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
class RobustAccuracy(Saved):
    """Accuracy of one classifier, clean and under attack, image by image.

    ``correct`` (n,) bool is the clean outcome, ``attacks`` what each attack did, ``worst`` (n,) bool which images
    survived everything. ``print`` it for a table; ``save(path)`` and ``RobustAccuracy.load(path)`` keep it.
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

    def record(self) -> dict[str, Any]:
        """Everything the value is made of, as JSON can hold it."""
        attacks = [{**vars(one), "survived": bits(one.survived), "passes": asdict(one.passes)} for one in self.attacks]
        return {"correct": bits(self.correct), "attacks": attacks}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RobustAccuracy:
        """The value that ``record`` came from."""
        return cls(from_bits(record["correct"]), [
            AttackOutcome(**{**one, "survived": from_bits(one["survived"]), "passes": Passes(**one["passes"])})
            for one in record["attacks"]
        ])  # fmt: skip


def _wilson(outcome: Tensor) -> tuple[float, float]:
    interval = scipy.stats.binomtest(int(outcome.sum()), len(outcome)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _percent(outcome: Tensor) -> str:
    low, high = _wilson(outcome)
    return f"{100 * outcome.double().mean():5.1f}%  [{100 * low:.1f}, {100 * high:.1f}]"


def _per_image(outcome: AttackOutcome) -> float:
    return (outcome.passes.forward_images + outcome.passes.backward_images) / max(outcome.attacked, 1)


def robust_accuracy(
    model: Model,
    data: Labelled,
    attacks: Mapping[str, Attack] | Iterable[Attack] | Attack | None = None,
    *,
    eps: float | None = None,
    norm: str = "linf",
    independent: bool = False,
    batch_size: int = 256,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    progress: bool | None = None,
) -> RobustAccuracy:
    """Measure accuracy under an ordered list of attacks; an image counts only if it survives all of them.

    Args:
        model: pixels in [0, 1] to logits, a module or a function; evaluated in evaluation mode and left as found.
        data: a ``Part``, a pair (x, y) of tensors or arrays, a map-style ``Dataset``, or minibatches (x, y) such as a
            ``DataLoader`` gives. What is loaded is attacked some images at a time, so that any number fits.
        attacks: functions (model, x, y, *, generator) -> x_adv by name, such as ``evaluation.strong_attacks(8 / 255)``
            or ``{"PGD": partial(attacks.pgd, eps=8 / 255)}``; a list of them or a single one goes by its own name.
            ``strong_attacks(eps, norm=norm)`` unless given.
        eps, norm: the ball, for attacks that do not bring one; every example is held against it, and against the
            ``eps`` and ``norm`` of an attack's own ``partial``.
        independent: attack all images with every attack, to compare attacks; otherwise only the survivors so far.
            The worst case is the same (up to rounding that depends on the batch).
        batch_size: images per call of an attack.
        seed: with an image's position in ``data`` and the attack's name it fixes the attack's random numbers.
        out: keep a JSON line a minibatch here; the same call then goes on where an earlier one was broken off. The file
            belongs to this model, these attacks with their arguments, images, labels and settings.
        progress: show a bar; None follows the session.

    Returns:
        A ``RobustAccuracy``: clean, per attack, worst case, with intervals and costs; ``print`` it for a table.

    Raises:
        ValueError, TypeError: images, labels or model output that are not what they should be; neither attacks nor
            eps; an attack whose examples leave the ball or the pixel range; an ``out`` of another model, other images,
            attacks or settings, which are named, or a model or attack that cannot be told apart from others.
        DamagedFile: ``out`` was altered. WriteFailed: nothing can be kept there.

    Examples:
        >>> result = tk.robust_accuracy(model, digits, tk.evaluation.reference_attack(0.2), progress=False)
        >>> result.clean_accuracy, result.robust_accuracy
        (1.0, 0.0)
    """
    given, model = model, as_module(model)
    check_count(batch_size, what="batch_size")
    if attacks is None and eps is None:
        raise ValueError("there is nothing to attack with: give eps for the strong attacks, or attacks of your own")
    named = strong_attacks(eps, norm=norm) if attacks is None else named_attacks(attacks, eps, norm)
    settings = {"eps": eps, "norm": norm, "independent": independent, "batch_size": batch_size, "seed": seed,
                "device": getattr(device_of(model), "type", None)}  # fmt: skip
    found, first, total = [], 0, len(named) * (_count(data) or 0) or None
    kept = keeping(out, given, named, settings)
    with evaluating(model), kept as keeper, track("attacking", total, progress) as bar:
        for part in windows(data, max(batch_size, 1024), device_of(model)):
            check_same_device(model, part.x)
            places = torch.arange(first, first := first + len(part), device=part.x.device)
            found.append(_attacked(model, part, places, named, independent, batch_size, seed, keeper, bar))
    return found[0] if len(found) == 1 else _joined(found)


def _count(data: Labelled) -> int | None:
    """How many images there are, if that can be told beforehand."""
    part = in_memory(data)
    if part is not None:
        return len(part)
    data = getattr(data, "dataset", data)
    return len(data) if is_dataset(data) else None


def _attacked(
    model: nn.Module, part: Part, places: Tensor, attacks: Mapping[str, Attack], independent: bool, batch_size: int,
    seed: int, keeper: Keeper, bar: Bar,
) -> RobustAccuracy:  # fmt: skip
    """The outcome of all attacks on images that lie in memory; ``places`` (n,) is where they stand in the data."""
    clean = correct(model, part, batch_size=batch_size)
    alive, outcomes = clean.clone(), []
    for name, attack in attacks.items():
        bar.describe(name)
        among = torch.ones_like(alive) if independent else alive
        outcome = _attack_all(model, part, places, name, attack, among, batch_size, seed, keeper, bar)
        outcome = replace(outcome, survived=outcome.survived & clean)  # an attack may turn a wrong label right
        alive = alive & outcome.survived
        outcomes.append(outcome)
    return RobustAccuracy(clean, outcomes)


def _attack_all(
    model: nn.Module, part: Part, places: Tensor, name: str, attack: Attack, among: Tensor, batch_size: int, seed: int,
    keeper: Keeper, bar: Bar,
) -> AttackOutcome:  # fmt: skip
    """Run one attack on the images ``among``; the others count as not surviving."""
    survived, passes, seconds = torch.zeros_like(among), Passes(), 0.0
    random = ImageRandom(seed, places).fork(zlib.crc32(name.encode()))
    left = among.nonzero()[:, 0]
    for index in left.split(batch_size) if len(left) else ():
        some, work = part[index], partial(_attack_some, model, part[index], name, attack, random[index])
        survived[index], spent, took = keeper.measure(name, places[index], some, work)
        passes, seconds = passes + spent, seconds + took
        bar.advance(len(index))
    bar.advance(len(part) - int(among.sum()))
    return AttackOutcome(name, survived, int(among.sum()), passes, seconds)


def _attack_some(
    model: nn.Module, some: Part, name: str, attack: Attack, random: ImageRandom
) -> tuple[Tensor, Passes]:  # fmt: skip
    """Which images of a minibatch survive an attack, and what it cost."""
    with count_passes(model) as spent:
        x_adv = attack(model, some.x.clone(), some.y.clone(), generator=random)
    check_examples(name, attack, x_adv, some.x)
    with torch.no_grad():
        return right(model, Part(x_adv.detach(), some.y, some.ids)), spent


def _joined(found: list[RobustAccuracy]) -> RobustAccuracy:
    """The outcomes on one part after another as the outcome on all."""
    outcomes = [
        AttackOutcome(
            some[0].name, torch.cat([outcome.survived for outcome in some]), sum(outcome.attacked for outcome in some),
            sum((outcome.passes for outcome in some), Passes()), sum(outcome.seconds for outcome in some),
        )
        for some in zip(*(one.attacks for one in found), strict=True)
    ]  # fmt: skip
    return RobustAccuracy(torch.cat([one.correct for one in found]), outcomes)
