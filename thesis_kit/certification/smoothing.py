"""Randomized smoothing: certified ℓ₂ radii for any classifier, from its answers to noisy copies of an image.

Cohen, Rosenfeld and Kolter (ICML 2019). The smoothed classifier g answers what the base classifier f answers most often
on x + N(0, σ²I). If f's top class has probability at least p > 1/2 under the noise, g's answer is constant within
R = σ Φ⁻¹(p). ``certify`` finds a p that holds with confidence 1 − α from n samples; ``predict`` finds g's answer.

``votes`` has the noise and the answers to it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from thesis_kit.asking import Model, as_module, evaluating
from thesis_kit.certification.kept_certificates import kept, one_by_one
from thesis_kit.certification.votes import BLOCK, PREDICTION, SELECTION, Votes
from thesis_kit.checks import check_count, check_labels
from thesis_kit.files import Saved
from thesis_kit.progress import track

ABSTAIN = -1  # in place of a label


@dataclass(frozen=True)
class Budget:
    """What a certificate rests on: ``n0`` samples choose the class, ``n`` others bound its probability.

    Args:
        sigma: standard deviation of the noise, in units of pixels in [0, 1]; positive.
        n0, n: numbers of samples, at least 1.
        alpha: chance that a certificate is wrong, in (0, 1/2).

    Raises:
        ValueError: a value outside its range, or an n that can certify nothing at this alpha.
    """

    sigma: float
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        _check_sigma_alpha(self.sigma, self.alpha)
        check_count(self.n0, what="n0"), check_count(self.n, what="n")
        if self.alpha ** (1 / self.n) <= 0.5:
            enough = math.floor(math.log2(1 / self.alpha)) + 1
            raise ValueError(
                f"n = {self.n} samples can certify nothing at alpha = {self.alpha:g}, the largest certifiable radius "
                f"is 0 even if all agree: take n of at least {enough}"
            )

    @property
    def largest_radius(self) -> float:
        """σ Φ⁻¹(α^(1/n)): the radius if all n samples agree. No certificate of this budget has a larger one."""
        return float(self.sigma * scipy.stats.norm.ppf(self.alpha ** (1 / self.n)))

    @cached_property
    def least_count(self) -> int:
        """How many of the n samples must agree for any radius at all."""
        low, high = 0, self.n  # bisection on a bound that rises with the count
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if lower_bound(middle, self.n, self.alpha) >= 0.5 else (middle, high)
        return high

    def radius(self, count: int) -> float:
        """The radius if ``count`` of n samples agree; 0 where that is too few to certify."""
        return max(0.0, float(self.sigma * scipy.stats.norm.ppf(lower_bound(count, self.n, self.alpha))))

    def __str__(self) -> str:
        return f"σ = {self.sigma:g}, n₀ = {self.n0:,}, n = {self.n:,}, α = {self.alpha:g}"


def lower_bound(count: int, n: int, alpha: float) -> float:
    """Clopper–Pearson: with confidence 1 − alpha, ``count`` of ``n`` successes have at least this probability."""
    return float(scipy.stats.beta.ppf(alpha, count, n - count + 1)) if count > 0 else 0.0


@dataclass(frozen=True)
class Certificate:
    """The smoothed classifier answers ``label`` everywhere within ℓ₂ ``radius``, with confidence 1 − α of its budget.

    ``label`` is ``ABSTAIN`` and ``radius`` 0 where nothing can be said. ``count`` of the ``samples`` that the bound
    rests on had the label that was tried.
    """

    label: int
    radius: float
    budget: Budget
    count: int
    samples: int

    @property
    def abstained(self) -> bool:
        """Whether nothing is certified."""
        return self.label == ABSTAIN

    @property
    def confidence(self) -> float:
        """1 − α: the chance, before the samples were drawn, that the certificate would be true."""
        return 1 - self.budget.alpha

    def __str__(self) -> str:
        said = "abstains" if self.abstained else f"label {self.label} within {self.radius:.3f}"
        return f"{said} (confidence {100 * self.confidence:g}%; {self.budget})"


class Certificates(Saved, Sequence[Certificate]):
    """Certificates of several images under one budget, in the order of the images.

    ``print`` it for a table; ``save(path)`` and ``Certificates.load(path)`` keep it.
    """

    def __init__(self, certificates: Sequence[Certificate], budget: Budget):
        self._all, self.budget = list(certificates), budget

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: int | slice) -> Certificate | Certificates:
        found = self._all[index]
        return Certificates(found, self.budget) if isinstance(index, slice) else found

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """Certified labels, ``ABSTAIN`` where there is none."""
        return torch.tensor([one.label for one in self._all], dtype=torch.int64)

    @property
    def radii(self) -> Float[Tensor, " n"]:
        """Certified radii in float64, 0 where there is none."""
        return torch.tensor([one.radius for one in self._all], dtype=torch.float64)

    @property
    def samples(self) -> int:
        """Noisy copies that were classified in all, those that chose the class included."""
        return sum(one.samples + self.budget.n0 for one in self._all)

    def accuracy(self, y: Int[Tensor, " n"], radius: float = 0.0) -> float:
        """Certified accuracy: the share of images with the true label ``y`` and a radius of at least ``radius``."""
        check_labels(y, len(self))
        right = self.labels == y.cpu()
        return (right & (self.radii >= radius)).double().mean().item()

    def __str__(self) -> str:
        labels, radii = self.labels, self.radii
        abstained, mean = int((labels == ABSTAIN).sum()), f"{radii.mean():.3f}" if len(self) else "–"
        said = (
            f"{len(self)} images, {abstained} abstained, mean radius {mean} of at most "
            f"{self.budget.largest_radius:.3f} ({self.budget})"
        )
        steps = [self.budget.largest_radius * k / 4 for k in range(5)]
        shares = [((labels != ABSTAIN) & (radii >= step * (1 - 1e-9))).double().mean().item() for step in steps]
        rows = [f"{step:>6.3f}  {100 * share:5.1f}%" for step, share in zip(steps, shares, strict=True)]
        return "\n".join([said, "radius  certified", *rows])

    def record(self) -> dict[str, Any]:
        """Everything the certificates are made of, as JSON can hold it."""
        rows = [[one.label, float(one.radius), one.count, one.samples] for one in self._all]
        return {"budget": asdict(self.budget), "columns": ["label", "radius", "count", "samples"], "certificates": rows}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Certificates:
        """The certificates that ``record`` came from."""
        budget = Budget(**record["budget"])
        return cls([_certificate(row, budget) for row in record["certificates"]], budget)


def certify(
    model: Model, x: Float[Tensor, "m c h w"], *, sigma: float, n0: int = 100, n: int = 100_000,
    alpha: float = 0.001, seed: int = 0, ids: Int[Tensor, " m"] | None = None, early_stop: bool = True,
    batch_size: int | None = None, out: str | os.PathLike | None = None, progress: bool | None = None,
) -> Certificates | None:  # fmt: skip
    """Certify images: CERTIFY of Cohen et al. 2019, for each image.

    Several threads on a processor that other processes keep busy can take a hundred times as long: set
    OMP_WAIT_POLICY=PASSIVE before Python starts, as the command line does, or ``torch.set_num_threads(1)``.

    Args:
        model: pixels to logits, deterministic in evaluation mode. It is given images with noise, outside [0, 1] too.
        x: images with pixels in [0, 1].
        sigma, n0, n, alpha: see ``Budget``.
        seed: with an image's id it decides the noise.
        ids: what tells the images apart, (m,) int64; their positions unless given.
        early_stop: leave an image after the block of 100 samples from which on those to come cannot save it from
            abstention. No label and no radius changes; ``count`` and ``samples`` of abstentions do.
        batch_size: noisy images a forward pass, whole blocks of 100 from there on; chosen for the device and the
            size of the images unless given.
        out: keep a JSON line an image here; the same call then goes on where an earlier one was broken off, and under
            ``torchrun`` each process does its share. The file belongs to these weights, images and settings.
        progress: show a bar; None follows the session.

    Returns:
        The certificates; None where ``out`` is given and other processes are still at work on their shares.

    Raises:
        ValueError, TypeError: images or a budget that cannot be meant. NotDeterministic: the model's answers vary.
        OtherRun: ``out`` belongs to another model, images or settings, which are named. DamagedFile: it was altered.

    Examples:
        >>> certificates = tk.certification.certify(model, digits.x, sigma=0.25, n0=20, n=100)
        >>> len(certificates)
        4
    """
    knobs = {"seed": seed, "ids": ids, "early_stop": early_stop, "batch_size": batch_size, "out": out}
    found = certify_nested(model, x, (n,), sigma=sigma, n0=n0, alpha=alpha, progress=progress, **knobs)
    return None if found is None else found[n]


def _certificate(row: Sequence[int | float], budget: Budget) -> Certificate:
    label, radius, count, samples = row
    return Certificate(label, radius, budget, count, samples)


def certify_nested(
    model: Model, x: Float[Tensor, "m c h w"], sizes: Sequence[int], *, sigma: float, n0: int = 100,
    alpha: float = 0.001, seed: int = 0, ids: Int[Tensor, " m"] | None = None, early_stop: bool = True,
    batch_size: int | None = None, out: str | os.PathLike | None = None, progress: bool | None = None,
) -> dict[int, Certificates] | None:  # fmt: skip
    """Certify with several n at the price of the largest: the samples of a smaller n begin those of a larger one.

    Args:
        sizes: the numbers n of samples.
        model, x, sigma, n0, alpha, seed, ids, early_stop, batch_size, out, progress: as for ``certify``.

    Returns:
        Size → the certificates that ``certify`` gives with that n.

    Examples:
        >>> nested = tk.certification.certify_nested(model, digits.x, [50, 100], sigma=0.25, n0=20)
        >>> list(nested)
        [50, 100]
    """
    budgets = [Budget(sigma, n0, n, alpha) for n in sorted(set(sizes))]
    if not budgets:
        raise ValueError("there is no number of samples to certify with: give at least one")
    given, model = model, as_module(model)
    votes = cache(lambda: Votes(model, x, sigma, seed, ids, batch_size))  # not needed where all is kept

    def certify_one(i: int) -> list[list[int | float]]:
        label = int(votes().counts(i, SELECTION, n0).argmax())
        made = {one.budget.n: one for one in _judged(votes(), i, label, budgets, early_stop)}
        return [[one.label, one.radius, one.count, one.samples] for one in (made[budget.n] for budget in budgets)]

    with evaluating(model):
        if out is None:
            votes()  # which looks at what was given, though there be no image
            rows = one_by_one(certify_one, len(x), progress)
        else:
            about = {"budgets": [asdict(one) for one in budgets], "seed": seed, "early_stop": early_stop}
            names = torch.arange(len(x)) if ids is None else ids
            rows = kept(out, given, x, names, about, certify_one, progress)
    if rows is None:
        return None
    return {one.n: Certificates([_certificate(row[k], one) for row in rows], one) for k, one in enumerate(budgets)}


def _judged(votes: Votes, i: int, label: int, budgets: list[Budget], early_stop: bool) -> Iterator[Certificate]:
    """One image's certificates for a label, one a budget, each as soon as it is decided."""
    waiting, hits, spent = list(budgets), 0, 0
    for agrees, agreeing in _by_block(votes.agreements(i, label, waiting[-1].n)):
        for one in [one for one in waiting if one.n <= spent + len(agrees)]:
            count = hits + int(agrees[: one.n - spent].sum())
            yield Certificate(label if count >= one.least_count else ABSTAIN, one.radius(count), one, count, one.n)
            waiting.remove(one)
        hits, spent = hits + agreeing, spent + len(agrees)
        for one in [one for one in waiting if early_stop and hits + one.n - spent < one.least_count]:
            yield Certificate(ABSTAIN, 0.0, one, hits, spent)
            waiting.remove(one)
        if not waiting:
            return


def _by_block(agreements: Iterator[Tensor]) -> Iterator[tuple[Tensor, int]]:
    """Blocks of answers, (BLOCK,) bool or what is left, with how many of each agree, counted a pass at a time."""
    for some in agreements:
        sums = some.cumsum(dim=0)[BLOCK - 1 :: BLOCK].tolist()  # (b // BLOCK,)
        ends = [0, *sums] if len(some) % BLOCK == 0 else [0, *sums, int(some.sum())]
        yield from zip(some.split(BLOCK), (end - start for start, end in pairwise(ends)), strict=True)


def predict(
    model: Model, x: Float[Tensor, "m c h w"], *, sigma: float, n: int = 1000, alpha: float = 0.001, seed: int = 0,
    ids: Int[Tensor, " m"] | None = None, batch_size: int | None = None, progress: bool | None = None,
) -> Int[Tensor, " m"]:  # fmt: skip
    """The smoothed classifier's answers, ``ABSTAIN`` where n samples do not tell: PREDICT of Cohen et al. 2019.

    An answer is the smoothed classifier's own with confidence 1 − alpha. Arguments as for ``certify``; the noise is
    other noise.

    Examples:
        >>> tk.certification.predict(model, digits.x, sigma=0.1, n=100).shape
        torch.Size([4])
    """
    _check_sigma_alpha(sigma, alpha)
    check_count(n, what="n")
    answers = torch.full((len(x),), ABSTAIN)
    model = as_module(model)
    with evaluating(model), track("predicting", len(x), progress) as bar:
        votes = Votes(model, x, sigma, seed, ids, batch_size)
        for i in range(len(x)):
            (first, second), (label, _) = (top.tolist() for top in votes.counts(i, PREDICTION, n).topk(2))
            if scipy.stats.binomtest(first, first + second).pvalue <= alpha:
                answers[i] = label
            bar.advance()
    return answers


def _check_sigma_alpha(sigma: float, alpha: float) -> None:
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a positive number, got {sigma}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie in (0, 1/2), got {alpha}")
