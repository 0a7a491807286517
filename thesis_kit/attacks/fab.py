"""FAB, a search for the nearest misclassified point (Croce and Hein 2020, "Minimally distorted adversarial examples
with a fast adaptive boundary attack", Algorithm 1), aimed at one wrong class after another (FAB-T).

Where PGD climbs a loss inside a ball, FAB walks along the decision boundary: each step goes to the boundary's linear
approximation, by the shortest way that keeps the pixels in range, with a pull toward the image; a point that crosses is
drawn back. It has no step size and asks for the ball only at the end, which finds points near the ball's edge that
ascent misses. One departure from the paper: its final search goes not quite to where the boundary is expected, since
on a model that is linear there, rounding would decide on which side of it the point lies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from thesis_kit.asking import Model, borrowed
from thesis_kit.attacks.apgd import Toward, most_likely_wrong
from thesis_kit.attacks.norms import L2, Linf, over
from thesis_kit.attacks.objective import Goal, ascent, best_of, checked_logits, prepare, score
from thesis_kit.checks import check_count
from thesis_kit.randomness import ImageRandom, image_random

_REACH = {"linf": 0.3, "l2": 1.0}  # ε of a restart's first point where there is neither a ball nor a point found
_LAST = 3  # steps of the final search
_ALMOST = 0.99  # of the way to the expected boundary that such a step goes


def fab_targeted(
    model: Model,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    eps: float | None,
    norm: str = "linf",
    steps: int = 100,
    n_targets: int = 9,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    generator: torch.Generator | ImageRandom | None = None,
) -> Float[Tensor, "n c h w"]:
    """Return images within ``eps`` of ``x`` that the model misclassifies, by FAB aimed at the likeliest wrong classes.

    The classes are the ``min(n_targets, k − 1)`` most likely wrong ones of each clean image, tried in this order. Any
    wrong class counts as success, and an image with a misclassified point in the ball is not attacked further. One
    without comes back as it is, as does one that the model misclassifies to begin with.

    Args:
        model: pixels in [0, 1] to logits (n, k), a module or a function; asked in evaluation mode and left as found.
        x: images in [0, 1].
        y: true labels.
        eps: radius of the ball, in pixel units; None for the nearest misclassified point over all classes and
            restarts, however far it lies.
        norm: "linf" or "l2".
        steps: steps a class and restart; each costs two forward passes and a backward one.
        n_targets: how many wrong classes to try.
        restarts: how often to try them; all but the first time from a random point, half as far from the image as the
            ball's edge or the nearest point found.
        alpha_max: the most weight that the pull toward the image gets, in [0, 1].
        eta: how far beyond the approximated boundary a step goes, at least 1.
        beta: what is left of a perturbation that crosses the boundary, in (0, 1).
        generator: a ``torch.Generator`` or ``ImageRandom`` for restarts; None draws from torch's default generator.

    Returns:
        Adversarial images, in [0, 1] exactly and with ‖δ‖ ≤ eps(1 + 1e-6) + 1e-7.

    Raises:
        ValueError, TypeError: what was seen and what to do, before or at the step that met it.

    Source: Croce and Hein 2020, Algorithm 1 and eqs. 4 to 10; the targeted form is that of AutoAttack.

    Examples:
        >>> adversarial = tk.attacks.fab_targeted(model, digits.x, digits.y, eps=0.1, steps=5, n_targets=2)
        >>> adversarial.shape
        torch.Size([4, 1, 8, 8])
    """
    model, x, goal, ball = prepare(model, x, y, eps=eps or 0.0, norm=norm, loss="margin", target=None)
    for name, count in (("steps", steps), ("n_targets", n_targets), ("restarts", restarts)):
        check_count(count, what=name)
    walk = _Walk(model, ball, eps, steps, alpha_max, eta, beta)
    random = image_random(generator, x)
    if len(x) == 0:
        return x.clone()
    with borrowed(model, "FAB"):
        with torch.no_grad():
            logits = checked_logits(model, x, goal)
        rivals = most_likely_wrong(logits, y, n_targets)  # (n, t)
        right = (~goal.reached(logits)).nonzero()[:, 0]
        nearest = torch.full((len(x),), torch.inf, device=x.device, dtype=torch.float64)

        def attempt(number: int, left: Tensor, random: ImageRandom) -> tuple[Tensor, Tensor, Tensor]:
            restart, rank = divmod(number, rivals.shape[1])
            left = right[left]
            start = walk.start(x[left], nearest[left], random) if restart else x[left]
            found, length = walk.along(x[left], start, Toward(_lead, y[left], rivals[left, rank]))
            nearest[left] = torch.minimum(nearest[left], length)
            return walk.judged(found, x[left], length)

        x_adv = x.clone()
        if len(right):
            x_adv[right] = best_of(x[right], random[right], restarts * rivals.shape[1], attempt)
        return x_adv


def _lead(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """f_t − f_c: by how much the target is ahead of the label, (n, k) -> (n,)."""
    return logits.gather(1, target[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]


@dataclass(frozen=True)
class _Walk:
    """One run of Algorithm 1 toward one class an image, with its knobs."""

    model: nn.Module
    ball: Linf | L2
    eps: float | None
    steps: int
    alpha_max: float
    eta: float
    beta: float

    def __post_init__(self) -> None:
        if not 0 <= self.alpha_max <= 1:
            raise ValueError(f"alpha_max must lie in [0, 1], the most weight of the pull, got {self.alpha_max}")
        if not 1 <= self.eta < math.inf:
            raise ValueError(f"eta must be a finite number of at least 1, a step's overshoot, got {self.eta}")
        if not 0 < self.beta < 1:
            raise ValueError(f"beta must lie in (0, 1), what is left of a perturbation, got {self.beta}")

    def start(self, x: Tensor, nearest: Tensor, random: ImageRandom) -> Tensor:
        """A random point at half the distance of the nearest one found or of the ball's edge: line 4."""
        reach = nearest.clamp_max(_REACH[self.ball.name] if self.eps is None else self.eps)
        wide = _wide(x)
        if self.ball.name == "linf":
            direction = random.uniform(*x.shape[1:], low=-1, high=1, dtype=wide)
        else:
            direction = random.normal(*x.shape[1:], dtype=wide)
        unit = over(direction, _per_image(self.ball.size(direction)))
        return (x + _per_image(reach / 2) * unit).clamp(0, 1).to(x.dtype)

    def along(self, x: Tensor, point: Tensor, toward: Goal) -> tuple[Tensor, Tensor]:
        """Lines 5 to 17 and the final search: per image the nearest misclassified point, and its distance or ∞."""
        found, length = x.clone(), torch.full((len(x),), torch.inf, device=x.device, dtype=torch.float64)
        left = torch.arange(len(x), device=x.device)  # row i of point belongs to image left[i]
        for step in range(self.steps):
            gradient, lead, _ = ascent(self.model, point, toward[left], check=step == 0)
            point = self.moved(x[left], point, gradient, lead)
            reached = score(self.model, point, toward[left])[1]
            closer = reached & (self.distance(point, x[left]) < length[left])
            found[left[closer]], length[left[closer]] = point[closer], self.distance(point, x[left])[closer]
            point = torch.where(_per_image(reached), (x[left] + self.beta * (point - x[left])).clamp(0, 1), point)
            going = ~self.inside(length[left])
            left, point = left[going], point[going]
            if len(left) == 0:
                return found, length
        left = left[length[left].isfinite()]
        if len(left):
            found[left] = self.drawn_back(x[left], found[left], toward[left])
            length[left] = self.distance(found[left], x[left])
        return found, length

    def moved(self, x: Tensor, point: Tensor, gradient: Tensor, lead: Tensor) -> Tensor:
        """x^(i+1): beyond the linearized boundary as seen from the point, averaged with that seen from the image."""
        wide = _wide(x)
        x_wide, point, gradient, lead = x.to(wide), point.to(wide), gradient.to(wide), lead.to(wide)
        lead_at_x = lead + (gradient * (x_wide - point)).flatten(1).sum(dim=1)
        both = boundary_step(
            torch.cat([point, x_wide]), torch.cat([gradient, gradient]), torch.cat([lead, lead_at_x]), self.ball
        )
        step, step_from_x = both.chunk(2)
        size, size_from_x = self.ball.size(step), self.ball.size(step_from_x)
        alpha = _per_image(over(size, size + size_from_x).clamp_max(self.alpha_max))  # eq. 9
        ahead = (1 - alpha) * (point + self.eta * step) + alpha * (x_wide + self.eta * step_from_x)
        return ahead.clamp(0, 1).to(x.dtype)

    def drawn_back(self, x: Tensor, found: Tensor, toward: Goal) -> Tensor:
        """The final search between a misclassified point and its image, eq. 10: where the lead of its class is gone."""
        near, far = x, found
        z_near, z_far = (checked_logits(self.model, end, toward).detach() for end in (near, far))
        for _ in range(_LAST):
            rival = z_far.scatter(1, toward.y[:, None], -torch.inf).argmax(dim=1)
            ahead, behind = _lead(z_far, toward.y, rival), -_lead(z_near, toward.y, rival)
            share = _per_image(_ALMOST * over(ahead, ahead + behind).clamp(0, 1)).to(_wide(x))
            middle = (far - share * (far - near)).clamp(0, 1).to(x.dtype)
            z = checked_logits(self.model, middle, toward).detach()
            crossed = toward.reached(z)
            far, near = (torch.where(_per_image(is_), middle, end) for is_, end in ((crossed, far), (~crossed, near)))
            z_far, z_near = (torch.where(is_[:, None], z, end) for is_, end in ((crossed, z_far), (~crossed, z_near)))
        return far

    def distance(self, point: Tensor, x: Tensor) -> Tensor:
        return self.ball.size(point.double() - x.double())

    def inside(self, length: Tensor) -> Tensor:
        """Whether a search that has come so near is over; one without a ball never is."""
        return torch.zeros_like(length, dtype=torch.bool) if self.eps is None else length <= self.eps

    def judged(self, found: Tensor, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What ``best_of`` wants to know: only points of the ball, if there is one, the nearest being best."""
        inside = self.inside(length)
        if self.eps is not None:
            found = torch.where(_per_image(inside), found, x)
        return found, -length, inside


def boundary_step(x: Tensor, normal: Tensor, lead: Tensor, ball: Linf | L2) -> Tensor:
    """The shortest δ that brings ⟨normal, δ⟩ + lead to zero with pixels x + δ in [0, 1]: eqs. 4 to 6.

    Where the box does not reach the plane, δ leads to the box's corner nearest to it. Exact: the pixels that end at
    the box's edge are found one set after another, each a part of the next.

    Args:
        x, normal: (n, c, h, w). lead: (n,).
        ball: the norm that is to be small.

    With w, ρ ≥ 0 the sizes of the normal and of the room that each pixel has in the direction wanted, δ has the sizes
    min(λ, ρ) in ℓ∞ and min(λw, ρ) in ℓ₂, with the least λ for which Σ w|δ| = |lead|. Raising λ by Newton's method from
    λ = 0 on ends there, for the sum is concave and piecewise linear in λ.
    """
    wanted = torch.where(lead > 0, -1, 1).to(x.dtype)[:, None]
    shape, x, normal = x.shape, x.flatten(1), wanted * normal.flatten(1)  # (n, d)
    weight = normal.abs()
    largest = weight.amax(dim=1, keepdim=True)
    weight, goal = over(weight, largest), over(lead.abs()[:, None], largest)
    room = torch.where(normal > 0, 1 - x, x).where(normal != 0, 0)
    rate = torch.ones_like(weight) if ball.name == "linf" else weight
    full, gain = room == 0, weight * rate
    while True:
        level = over(goal - (weight * room * full).sum(dim=1, keepdim=True), (gain * ~full).sum(dim=1, keepdim=True))
        more = ~full & (level * rate >= room)
        if not more.any():
            break
        full = full | more
    return (normal.sign() * torch.where(full, room, level * rate)).view(shape)


def _wide(x: Tensor) -> torch.dtype:
    """The precision to calculate in: single at least."""
    return torch.promote_types(x.dtype, torch.float32)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
