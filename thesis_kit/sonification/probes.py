"""What can be read linearly off a layer: pitch, voice, phone, word, with equal capacity at every layer.

A probe is a ridge regression on the leading principal components of standardized states, as many at every layer. How
much it is regularized is chosen inside the training fold, "not at all of use" among the choices, so that what cannot be
read scores zero rather than below it. Whole groups are held out: a word, or a voice, is never in both folds.

Deviations have a floor before anything is divided by them, since a unit that hardly ever moves would otherwise explode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from thesis_kit.checks import check_count

COMPONENTS = 48
FOLDS = 5
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, torch.inf)  # of regularization, as shares of the mean variance
_FLOOR, _FAR = 0.1, 8.0  # of the deviations' root mean square; deviations that a value may be away from the mean


@dataclass(frozen=True)
class Probe:
    """What a probe came to: ``score`` is the mean of ``items`` (n,), clamped at 0.

    An item's share is 1 − its squared error over the variance for numbers (so that the mean is R²), and whether it is
    right for classes.
    """

    items: Tensor

    @property
    def score(self) -> float:
        """R², or the share that is right; at least 0."""
        return max(0.0, self.items.mean().item())


def probe(
    features: Float[Tensor, "n u"], target: Tensor, groups: Sequence[object], *, components: int = COMPONENTS,
    folds: int = FOLDS, seed: int = 0,
) -> Probe:  # fmt: skip
    """How well a target can be read off features by a linear map, for groups that it was not fitted on.

    Args:
        features: one row an item. target: (n,) numbers, or class labels as int64.
        groups: of each item, such as its word; items of a group are in one fold.
        components: the most principal components. folds: of groups. seed: of their order.

    Raises:
        ValueError: fewer than two groups, lengths that differ, features that are not finite, a target that is the same
            for all.

    Examples:
        >>> features = torch.arange(40.0)[:, None] % 8
        >>> found = tk.sonification.probe(features, features[:, 0], [i // 8 for i in range(40)])
        >>> round(found.score, 3)
        1.0
    """
    numbers = group_numbers(groups)
    check_count(components, what="components"), check_count(folds, what="folds", least=2)
    if not len(features) == len(target) == len(numbers):
        seen = f"{len(features)} rows, {len(target)} targets and {len(numbers)} groups"
        raise ValueError(f"there must be a row, a target and a group for each item, got {seen}")
    if not torch.isfinite(features).all():
        raise ValueError("features hold NaN or infinity: look at the clips and the layer they are of")
    if (target == target[0]).all():
        raise ValueError("the target is the same for all items, so that there is nothing to read off")
    count = int(numbers.max()) + 1
    if count < 2:
        raise ValueError("a probe is judged on groups that it was not fitted on: give items of two or more")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    wanted = _wanted(target)
    items = torch.zeros(len(target), dtype=torch.float64)
    for fold in order.chunk(min(folds, count)):
        held = torch.isin(numbers, fold)
        guess = _fitted(features.double(), wanted, numbers, ~held, held, components)
        items[held] = _shares(guess, wanted[held], target, held)
    return Probe(items)


def group_numbers(groups: Sequence[object]) -> Int[Tensor, " n"]:
    """Groups as numbers from 0, in the order of their first items."""
    known = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return torch.tensor([known[group] for group in groups], dtype=torch.int64)


def _wanted(target: Tensor) -> Float[Tensor, "n k"]:
    """Numbers as one column, classes as a column each of 0 and 1."""
    if target.is_floating_point():
        return target.double()[:, None]
    return torch.nn.functional.one_hot(target - target.min()).double()


def _shares(guess: Tensor, wanted: Tensor, target: Tensor, held: Tensor) -> Tensor:
    if not target.is_floating_point():
        return (guess.argmax(dim=1) == wanted.argmax(dim=1)).double()
    variance = target.double().var(correction=0)
    return 1 - (guess - wanted)[:, 0].square() / variance


def _fitted(
    features: Tensor, wanted: Tensor, groups: Tensor, train: Tensor, held: Tensor, components: int
) -> Float[Tensor, "m k"]:
    """Guesses for held-out items by the strength that serves groups within the training fold best."""
    known = groups[train].unique()
    inner = torch.isin(groups, known[:: max(2, min(4, len(known)))]) & train  # about a quarter of the groups chooses
    fitting = train & ~inner
    if not (fitting.any() and inner.any()):
        return _ridge(features[train], wanted[train], features[held], components)[2]
    tried = _ridge(features[fitting], wanted[fitting], features[inner], components)
    errors = [(guess - wanted[inner]).square().mean().item() for guess in tried]
    best = min(range(len(errors)), key=errors.__getitem__)
    return _ridge(features[train], wanted[train], features[held], components)[best]


def deviations(features: Float[Tensor, "n u"]) -> Float[Tensor, " u"]:
    """The standard deviation of each unit, or the floor."""
    spread = features.std(dim=0, correction=0)
    return spread.clamp_min(_FLOOR * float(spread.square().mean().sqrt()) + 1e-12)


def _ridge(x: Tensor, y: Tensor, asked: Tensor, components: int) -> list[Float[Tensor, "m k"]]:
    """Guesses for what is asked, by every strength of regularization."""
    center, spread = x.mean(dim=0), deviations(x)
    x, asked = (((z - center) / spread).clamp(-_FAR, _FAR) for z in (x, asked))
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    kept = min(components, int((s > 1e-9 * s[:1]).sum()))
    u, s, vh = u[:, :kept], s[:kept], vh[:kept]
    mean, rotated, scores = y.mean(dim=0), u.T @ (y - y.mean(dim=0)), asked @ vh.T
    unit = s.square().mean() if kept else torch.tensor(1.0)
    return [mean + scores @ ((s / (s.square() + strength * unit))[:, None] * rotated) for strength in _STRENGTHS]


def within(values: Float[Tensor, "n ..."], groups: Sequence[object]) -> Float[Tensor, "n ..."]:
    """Values minus their group's mean: pitch within a voice, say.

    Examples:
        >>> tk.sonification.within(torch.tensor([1.0, 3.0, 10.0]), ["a", "a", "b"])
        tensor([-1.,  1.,  0.])
    """
    numbers = group_numbers(groups).to(values.device)
    found = values.clone()
    for number in range(int(numbers.max()) + 1):
        found[numbers == number] -= values[numbers == number].mean(dim=0)
    return found


def without(features: Float[Tensor, "n u"], nuisance: Float[Tensor, " n"]) -> Float[Tensor, "n u"]:
    """Features after a nuisance and its square have been regressed out of each: what is left of a voice without F0.

    Examples:
        >>> nuisance = torch.arange(5.0)
        >>> bool(tk.sonification.without(2 * nuisance[:, None], nuisance).abs().max() < 1e-4)
        True
    """
    basis = torch.stack([torch.ones_like(nuisance), nuisance, nuisance.square()], dim=1).double()
    return features - (basis @ torch.linalg.lstsq(basis, features.double()).solution).to(features)


def one_shot(
    features: Float[Tensor, "n u"], words: Sequence[str], voices: Sequence[str], *, seed: int = 0
) -> Probe:  # fmt: skip
    """Whether a clip's nearest of one clip a word, by another voice, says the same word; every voice is asked in turn.

    Nearness is the cosine of standardized features. The one clip a word is drawn at random from those of the voice.

    Args:
        features: one row a clip. words, voices: of each clip. seed: of the drawing.

    Returns:
        A ``Probe`` whose items are shares over the voices that a clip was compared with.

    Raises:
        ValueError: fewer than two voices.

    Examples:
        >>> words, voices = ["yes", "no"] * 3, ["a", "a", "b", "b", "c", "c"]
        >>> features = torch.tensor([[0.0], [1.0]]).repeat(3, 1)
        >>> tk.sonification.one_shot(features, words, voices).score
        1.0
    """
    word, voice = group_numbers(words), group_numbers(voices)
    if int(voice.max()) < 1:
        raise ValueError("a word is looked for in another voice, and there is only one: give clips of two or more")
    normal = torch.nn.functional.normalize((features - features.mean(dim=0)) / deviations(features), dim=1)
    drawn = torch.rand(len(word), generator=torch.Generator().manual_seed(seed))
    right, asked = torch.zeros(len(word), dtype=torch.float64), torch.zeros(len(word), dtype=torch.float64)
    for one in range(int(voice.max()) + 1):
        own = torch.nonzero(voice == one)[:, 0]
        by_word = [own[word[own] == number] for number in word[own].unique()]
        examples = torch.stack([rows[drawn[rows].argmin()] for rows in by_word])
        others = torch.nonzero((voice != one) & torch.isin(word, word[examples]))[:, 0]
        nearest = (normal[others] @ normal[examples].T).argmax(dim=1)
        right[others] += (word[examples][nearest] == word[others]).double()
        asked[others] += 1
    if not asked.any():
        raise ValueError("no word is said by two of the voices: give clips of the same words by several")
    return Probe((right / asked.clamp_min(1))[asked > 0])


def voices_meet(features: Float[Tensor, "n u"], words: Sequence[str], voices: Sequence[str], *, pairs: int = 10_000,
                seed: int = 0) -> float:  # fmt: skip
    """Log of the mean distance of two voices saying one word over that of one voice saying two; below 0 they meet.

    Args:
        features: one row a clip. words, voices: of each. pairs: so many are drawn of either kind. seed: of drawing.

    Examples:
        >>> words, voices = ["yes", "no"] * 3, ["a", "a", "b", "b", "c", "c"]
        >>> features = torch.tensor([[0.0], [1.0]]).repeat(3, 1) + torch.arange(6)[:, None] / 100
        >>> tk.sonification.voices_meet(features, words, voices) < 0
        True
    """
    word, voice = group_numbers(words), group_numbers(voices)
    normal = features / deviations(features)
    a, b = torch.randint(len(word), (2, 40 * pairs), generator=torch.Generator().manual_seed(seed))
    kinds = (word[a] == word[b]) & (voice[a] != voice[b]), (word[a] != word[b]) & (voice[a] == voice[b])
    if not all(kind.any() for kind in kinds):
        raise ValueError("voices meet where two say one word and one says two: give clips of several words and voices")
    across, inside = ((normal[a[kind][:pairs]] - normal[b[kind][:pairs]]).norm(dim=1).mean() for kind in kinds)
    return (across / inside).log().item()
