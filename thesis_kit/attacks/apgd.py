"""Auto-PGD (Croce and Hein 2020, Algorithm 1): projected gradient ascent that chooses its own step size.

It differs from PGD in three ways: a step has momentum, the step size is halved where progress has stalled,
and after each halving the search goes on from the best point seen. Nothing is left to tune but the number of
steps.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from thesis_kit.asking import Model, borrowed
from thesis_kit.attacks.losses import Loss, targeted_dlr
from thesis_kit.attacks.norms import L2, Linf, within_ball
from thesis_kit.attacks.objective import Goal, ascent, best_of, checked_logits, prepare, score
from thesis_kit.checks import check_count
from thesis_kit.randomness import ImageRandom, image_random

_MOMENTUM = 0.75  # α: the share of the new step; 1 − α repeats the last move
_PROGRESS = 0.75  # ρ: a window in which fewer than this share of the steps improved has stalled


def apgd(
    model: Model,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    loss: str | Loss = "ce",
    restarts: int = 1,
    target: Int[Tensor, " n"] | None = None,
    generator: torch.Generator | ImageRandom | None = None,
) -> Float[Tensor, "n c h w"]:
    """Return images within ``eps`` of ``x`` that the model classifies worse, by Auto-PGD.

    The best point found counts, not the last iterate: the first one that reaches the goal (any wrong class,
    or the target), else the one of highest loss over all steps and restarts. An image that is done is not
    attacked further.

    Args:
        model: pixels in [0, 1] to logits (n, k), a module or a function; asked in evaluation mode and left as
            found, buffers included.
        x: images in [0, 1].
        y: true labels.
        eps: radius of the ball, in pixel units (8/255 for the CIFAR-10 standard).
        norm: "linf" or "l2".
        steps: gradient steps per restart; each costs one forward and one backward pass, and the last point
            one forward.
        loss: "ce", "dlr", "margin", or any callable (logits, y) -> (n,).
        restarts: how often to start anew at a random point of the ball.
        target: classes to reach instead; then the loss of the target is made small.
        generator: a ``torch.Generator`` or ``ImageRandom``; None draws from torch's default generator.

    Returns:
        Adversarial images, in [0, 1] exactly and with ‖δ‖ ≤ eps(1 + 1e-6) + 1e-7.

    Raises:
        ValueError, TypeError: what was seen and what to do, before or at the step that met it.

    Source: Croce and Hein 2020, Algorithm 1. A checkpoint w_j is taken after w_j steps.

    Examples:
        >>> adversarial = tk.attacks.apgd(model, digits.x, digits.y, eps=0.1, steps=5)
        >>> bool((adversarial - digits.x).abs().max() <= 0.1 + 1e-6)
        True
    """
    model, x, goal, ball = prepare(model, x, y, eps=eps, norm=norm, loss=loss, target=target)
    check_count(steps, what="steps")
    check_count(restarts, what="restarts")
    random = image_random(generator, x)
    if len(x) == 0:
        return x.clone()

    def attempt(_: int, left: Tensor, random: ImageRandom) -> tuple[Tensor, Tensor, Tensor]:
        return _climb(model, x[left], goal[left], random, ball, eps, steps)

    with borrowed(model, "APGD"):
        return best_of(x, random, restarts, attempt)


def apgd_targeted(
    model: Model,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    n_targets: int = 9,
    generator: torch.Generator | ImageRandom | None = None,
) -> Float[Tensor, "n c h w"]:
    """Return images within ``eps`` of ``x`` that the model classifies worse, aiming at one after another.

    The classes are the ``min(n_targets, k − 1)`` most likely wrong ones of each clean image, tried in this
    order with the targeted DLR loss. Any wrong class counts as success, and an image that is done is not
    attacked again; one that the model misclassifies to begin with comes back as it is. As in ``apgd`` the
    best point found counts.

    Args:
        n_targets: how many wrong classes to try; each costs what one restart of ``apgd`` costs.
        model, x, y, eps, norm, steps, generator: as in ``apgd``.

    Returns, raises: as ``apgd``.

    Source: Croce and Hein 2020, section 4 and eq. 7 (APGD with the targeted DLR loss); below four classes see
    ``losses.targeted_dlr``.

    Examples:
        >>> adversarial = tk.attacks.apgd_targeted(model, digits.x, digits.y, eps=0.1, steps=5, n_targets=2)
        >>> adversarial.shape
        torch.Size([4, 1, 8, 8])
    """
    model, x, goal, ball = prepare(model, x, y, eps=eps, norm=norm, loss="dlr", target=None)
    check_count(steps, what="steps")
    check_count(n_targets, what="n_targets")
    random = image_random(generator, x)
    if len(x) == 0:
        return x.clone()
    with borrowed(model, "APGD"):
        with torch.no_grad():
            logits = checked_logits(model, x, goal)
        rivals = most_likely_wrong(logits, y, n_targets)  # (n, t)
        right = (~goal.reached(logits)).nonzero()[:, 0]

        def attempt(rank: int, left: Tensor, random: ImageRandom) -> tuple[Tensor, Tensor, Tensor]:
            left = right[left]
            toward = Toward(targeted_dlr, y[left], rivals[left, rank])
            return _climb(model, x[left], toward, random, ball, eps, steps)

        x_adv = x.clone()
        if len(right):
            x_adv[right] = best_of(x[right], random[right], rivals.shape[1], attempt)
        return x_adv


class Toward(Goal):
    """Approach the class ``target``, and be content with any wrong one."""

    def value(self, logits: Tensor) -> Tensor:
        return self.loss(logits, self.y, self.target)

    def reached(self, logits: Tensor) -> Tensor:
        return logits.argmax(dim=1) != self.y


def most_likely_wrong(logits: Tensor, y: Tensor, n_targets: int) -> Tensor:
    """The wrong classes of largest logit, in falling order: (n, k) -> (n, min(n_targets, k − 1))."""
    wrong = logits.scatter(1, y[:, None], -torch.inf)
    return wrong.sort(dim=1, descending=True, stable=True).indices[:, : min(n_targets, logits.shape[1] - 1)]


def checkpoints(steps: int) -> list[int]:
    """The steps w_j = ⌈p_j · steps⌉ after which progress is judged.

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06): the windows shrink with time.
    """
    percent, width, found = 22, 22, []  # p_1 − p_0, in whole per cent: 0.41 · 100 would round up to 42
    while percent <= 100:
        found.append(-(-percent * steps // 100))
        width = max(width - 3, 6)
        percent += width
    return sorted(set(found))


@dataclass
class _Search:
    """Where the search stands: row i of every tensor belongs to the i-th image still searched."""

    index: Tensor  # (n,) its place in the batch
    x: Tensor  # (n, c, h, w) the clean image
    point: Tensor  # x^(k)
    previous: Tensor  # x^(k−1)
    gradient: Tensor  # at the point
    value: Tensor  # (n,) f(x^(k))
    best: Tensor  # x_max
    best_gradient: Tensor
    best_value: Tensor  # (n,) f_max
    step_size: Tensor  # (n, 1, 1, 1) η
    improvements: Tensor  # (n,) steps since the last checkpoint that raised f
    checked_value: Tensor  # (n,) f_max at the last checkpoint
    halved: Tensor  # (n,) whether η was halved at the last checkpoint

    def keep(self, mask: Tensor) -> None:
        for name, tensor in list(vars(self).items()):
            setattr(self, name, tensor[mask])

    def proposal(self, ball: Linf | L2, eps: float, first: bool) -> Tensor:
        """x^(k+1): a step of length η, averaged with the last move (there is none at first)."""
        stepped = ball.project(self.point + self.step_size * ball.direction(self.gradient), self.x, eps)
        if not first:
            moved = _MOMENTUM * (stepped - self.point) + (1 - _MOMENTUM) * (self.point - self.previous)
            stepped = ball.project(self.point + moved, self.x, eps)
        return within_ball(stepped, self.x, eps, ball)  # before it is judged: rounding could leave the ball

    def accept(self, point: Tensor, gradient: Tensor, value: Tensor) -> None:
        """Move to the point, and remember it if it is the best."""
        self.improvements += value > self.value
        self.previous, self.point, self.gradient, self.value = self.point, point, gradient, value
        better = value > self.best_value
        self.best = torch.where(_per_image(better), point, self.best)
        self.best_gradient = torch.where(_per_image(better), gradient, self.best_gradient)
        self.best_value = torch.where(better, value, self.best_value)

    def halve_where_stalled(self, window: int) -> None:
        """Conditions 1 and 2: halve η and go back to the best point where the window brought too little."""
        few = self.improvements < _PROGRESS * window
        nothing = ~self.halved & (self.best_value == self.checked_value)
        self.halved = few | nothing
        stalled = _per_image(self.halved)
        self.step_size = torch.where(stalled, self.step_size / 2, self.step_size)
        self.point = torch.where(stalled, self.best, self.point)
        self.gradient = torch.where(stalled, self.best_gradient, self.gradient)
        self.value = torch.where(self.halved, self.best_value, self.value)
        self.checked_value, self.improvements = self.best_value, torch.zeros_like(self.improvements)


def _per_image(mask: Tensor) -> Tensor:
    return mask.view(-1, 1, 1, 1)


def _climb(
    model: nn.Module, x: Tensor, goal: Goal, random: ImageRandom, ball: Linf | L2, eps: float, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One run from a random start: per image the best point, its value, and whether it is fooled."""
    point = within_ball(ball.random_start(random, x, eps), x, eps, ball)
    gradient, value, logits = ascent(model, point, goal, check=True)
    best, best_value, fooled = point.clone(), value.clone(), goal.reached(logits)
    search = _Search(
        index=torch.arange(len(x), device=x.device), x=x, point=point, previous=point, gradient=gradient,
        value=value, best=point, best_gradient=gradient, best_value=value, checked_value=value,
        step_size=torch.full((len(x), 1, 1, 1), 2 * eps, device=x.device, dtype=x.dtype),
        improvements=torch.zeros_like(goal.y), halved=torch.zeros_like(fooled),
    )  # fmt: skip
    search.keep(~fooled)
    windows = dict(itertools.pairwise([*reversed(checkpoints(steps)), 0]))  # w_j: w_{j−1}
    for step in range(1, steps + 1):
        if len(search.index) == 0:
            break
        point, some = search.proposal(ball, eps, first=step == 1), goal[search.index]
        if step < steps:
            gradient, value, logits = ascent(model, point, some)
            reached = some.reached(logits)
        else:  # nobody will need the gradient at the last point
            (value, reached), gradient = score(model, point, some), torch.zeros_like(point)
        search.accept(point, gradient, value)
        if reached.any():
            done = search.index[reached]
            best[done], best_value[done], fooled[done] = point[reached], value[reached], True
            search.keep(~reached)
        if step in windows:
            search.halve_where_stalled(step - windows[step])
    best[search.index], best_value[search.index] = search.best, search.best_value
    return best, best_value, fooled
