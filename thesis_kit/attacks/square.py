"""Square Attack (Andriushchenko et al. 2020): random search with square patches, from scores alone.

It needs no gradient, so it is not deceived by a model that hides one. Each query changes one square of the
image, of a side that shrinks on a fixed schedule, and the change stays if the loss improves. One departure
from the paper's Algorithm 2: a linf proposal that would leave the image as it is (frequent with one channel)
is turned into its negative.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from thesis_kit.asking import Model, evaluating
from thesis_kit.attacks.losses import Loss
from thesis_kit.attacks.norms import L2, NORMS, Linf, l2_norm, over, within_ball
from thesis_kit.attacks.objective import Goal, prepare, score
from thesis_kit.checks import check_count
from thesis_kit.randomness import ImageRandom, image_random

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries; scaled to any other horizon
_PAPERS = 10_000


def square(
    model: Model,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    eps: float,
    norm: str = "linf",
    queries: int = 5000,
    p_init: float = 0.8,
    horizon: int | None = None,
    loss: str | Loss = "margin",
    target: Int[Tensor, " n"] | None = None,
    generator: torch.Generator | ImageRandom | None = None,
) -> Float[Tensor, "n c h w"]:
    """Return images within ``eps`` of ``x`` that the model classifies worse, found from its scores alone.

    The best point found counts: the first one that reaches the goal (any wrong class, or the target), else
    the one of highest loss. An image that is done is not queried again.

    Args:
        model: pixels in [0, 1] to logits (n, k), a module or a function, not necessarily differentiable; asked in
            evaluation mode and left as found, buffers included.
        x: images in [0, 1].
        y: true labels.
        eps: radius of the ball, in pixel units (8/255 for the CIFAR-10 standard).
        norm: "linf" or "l2".
        queries: forward passes an image may cost; the first one is spent on the initial point.
        p_init: share of the pixels that a square covers at first, in (0, 1]; halved on the paper's schedule.
        horizon: queries that the schedule is laid out for, ``queries`` in linf and the paper's 10,000 in l2 unless
            given. A longer one keeps the squares large for longer: on the zoo's validation images that fooled, in l2,
            5 times as many within 200 queries and 1.7 times as many within 1,000 at 32 px, and 0.9 times at 8 px.
        loss: "margin", "ce", "dlr", or any callable (logits, y) -> (n,).
        target: classes to reach instead; then the loss of the target is made small.
        generator: a ``torch.Generator`` or ``ImageRandom``; None draws from torch's default generator.

    Returns:
        Adversarial images, in [0, 1] exactly and with ‖δ‖ ≤ eps(1 + 1e-6) + 1e-7.

    Raises:
        ValueError, TypeError: what was seen and what to do, before or at the query that met it.

    Source: Andriushchenko et al. 2020, Algorithms 1 to 3.

    Examples:
        >>> adversarial = tk.attacks.square(model, digits.x, digits.y, eps=0.2, queries=50)
        >>> adversarial.shape
        torch.Size([4, 1, 8, 8])
    """
    model, x, goal, ball = prepare(model, x, y, eps=eps, norm=norm, loss=loss, target=target)
    check_count(queries, what="queries")
    horizon = (_PAPERS if norm == "l2" else queries) if horizon is None else horizon
    check_count(horizon, what="horizon")
    if not 0 < p_init <= 1:
        raise ValueError(f"p_init must lie in (0, 1], the square's first share of the pixels, got {p_init}")
    random = image_random(generator, x).fork(0)
    if len(x) == 0:
        return x.clone()
    with evaluating(model):
        return _searched(model, x, goal, ball, random, eps=eps, queries=queries, p_init=p_init, horizon=horizon)


def _searched(
    model: nn.Module, x: Tensor, goal: Goal, ball: Linf | L2, random: ImageRandom, *, eps: float, queries: int,
    p_init: float, horizon: int,
) -> Tensor:  # fmt: skip
    """The search itself."""
    start, propose = _MOVES[ball.name]
    result = x.clone()
    left, best = torch.arange(len(x), device=x.device), within_ball(start(random, x, eps), x, eps, ball)
    best_value, reached = score(model, best, goal)
    for query in range(1, queries + 1):
        if reached.any():
            result[left[reached]] = best[reached]
            wrong = ~reached
            left, x, best, best_value = left[wrong], x[wrong], best[wrong], best_value[wrong]
            goal, random = goal[wrong], random[wrong]
        if query == queries or len(left) == 0:
            break
        candidate = within_ball(propose(random, x, best, eps, _side(query, horizon, p_init, x)), x, eps, ball)
        value, reached = score(model, candidate, goal)
        better = reached | (value > best_value)
        best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
        best_value = torch.where(better, value, best_value)
    result[left] = best
    return result


def _side(query: int, horizon: int, p_init: float, x: Tensor) -> int:
    """Side of the square at this query: √(p · h · w), p halved as often as the schedule says."""
    share = p_init / 2 ** sum(query * _PAPERS > halving * horizon for halving in _HALVINGS)
    height, width = x.shape[-2:]
    return min(max(round((share * height * width) ** 0.5), 1), height, width)


def _stripes(random: ImageRandom, x: Tensor, eps: float) -> Tensor:
    """Initial point for linf: vertical stripes one pixel wide, ±ε in each channel."""
    return (x + eps * random.signs(x.shape[1], 1, x.shape[3], dtype=x.dtype)).clamp(0, 1)


def _recolor_square(random: ImageRandom, x: Tensor, best: Tensor, eps: float, side: int) -> Tensor:
    """Algorithm 2: one square at a random place becomes x ± ε, with one sign a channel.

    Adding ±2ε to a perturbation of ±ε and projecting, as the paper writes it, is the same as setting it to
    ±ε.
    """
    numbers = random.uniform(2 + x.shape[1], dtype=torch.float32)
    inside = _window(numbers[:, :2], x, side)  # (n, 1, h, w)
    color = eps * torch.where(numbers[:, 2:] < 0.5, -1, 1).to(x.dtype)[:, :, None, None]  # (n, c, 1, 1)
    candidate = torch.where(inside, (x + color).clamp(0, 1), best)
    idle = (candidate == best).flatten(1).all(dim=1).view(-1, 1, 1, 1)
    return torch.where(inside & idle, (x - color).clamp(0, 1), candidate)


def _tiles(random: ImageRandom, x: Tensor, eps: float) -> Tensor:
    """Initial point for l2: the image tiled by bumps a fifth of its size, of random signs, total norm ε."""
    height, width = x.shape[-2:]
    side = max(min(height, width) // 5, 1)
    rows, columns = -(-height // side), -(-width // side)
    signs = random.signs(x.shape[1], rows, columns, dtype=x.dtype)
    signs = signs.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)  # (n, c, ≥ h, ≥ w)
    pattern = (signs * _bump(side, side, x).repeat(rows, columns))[..., :height, :width]
    return (x + eps * over(pattern, l2_norm(pattern))).clamp(0, 1)


def _move_norm(random: ImageRandom, x: Tensor, best: Tensor, eps: float, side: int) -> Tensor:
    """Algorithm 3: empty one window of the perturbation and spend what this frees in another."""
    side = min(max(side + 1 - side % 2, 3), *x.shape[-2:])  # odd, ≥ 3, if the image is that large
    channels = x.shape[1]
    numbers = random.uniform(5 + channels, dtype=torch.float32)
    here, there = _window(numbers[:, 0:2], x, side), _window(numbers[:, 2:4], x, side)  # (n, 1, h, w)
    signs = torch.where(numbers[:, 5:] < 0.5, -1, 1).to(x.dtype)[:, :, None, None]  # (n, c, 1, 1)
    bumps = _placed(_two_bumps(side, x), numbers[:, :2], numbers[:, 4] < 0.5, x, side) * here  # (n, 1, h, w)

    perturbation = best - x
    unused = (eps**2 - l2_norm(perturbation) ** 2).clamp_min(0) / channels
    available = (_channel_norm(perturbation * (here | there)) ** 2 + unused).sqrt()
    local = perturbation * here
    local = signs * bumps + over(local, _channel_norm(local))
    local = over(local, _channel_norm(local)) * available
    perturbation = torch.where(here, local, perturbation * ~there)
    return NORMS["l2"].project(x + perturbation, x, eps)


def _window(corner: Tensor, x: Tensor, side: int) -> Tensor:
    """Mask of a square of this side, its corner given by uniform numbers (n, 2): (n, 1, h, w)."""
    row, column = _offsets(corner, x, side)
    return ((row >= 0) & (row < side))[:, None, :, None] & ((column >= 0) & (column < side))[:, None, None, :]


def _offsets(corner: Tensor, x: Tensor, side: int) -> list[Tensor]:
    """Rows and columns counted from the square's corner: (n, h) and (n, w)."""
    offsets = []
    for axis, length in enumerate(x.shape[-2:]):
        first = (corner[:, axis] * (length - side + 1)).floor().long()
        offsets.append(torch.arange(length, device=x.device) - first[:, None])
    return offsets


def _placed(pattern: Tensor, corner: Tensor, transposed: Tensor, x: Tensor, side: int) -> Tensor:
    """The pattern (side, side) or its transpose at each image's square, anything outside: (n, 1, h, w)."""
    row, column = (offset.clamp(0, side - 1) for offset in _offsets(corner, x, side))
    row, column = row[:, None, :, None], column[:, None, None, :]
    return torch.where(transposed.view(-1, 1, 1, 1), pattern[column, row], pattern[row, column])


def _bump(height: int, width: int, x: Tensor) -> Tensor:
    """η: Σ 1/j² for j > d up to the number of rings, d the ring of the pixel; of unit norm."""
    rings = max(height, width) // 2 + 1
    rows = (torch.arange(height, device=x.device) - height // 2).abs()
    columns = (torch.arange(width, device=x.device) - width // 2).abs()
    terms = 1 / torch.arange(1, rings + 1, device=x.device, dtype=torch.float64) ** 2
    tail = terms.flip(0).cumsum(0).flip(0)  # tail[d] = the sum over j > d
    bump = tail[torch.maximum(rows[:, None], columns[None, :])]
    return (bump / bump.norm()).to(x.dtype)


def _two_bumps(side: int, x: Tensor) -> Tensor:
    """Two bumps of opposite sign, one above the other, of unit norm: (side, side)."""
    if side == 1:
        return torch.ones(1, 1, device=x.device, dtype=x.dtype)
    pair = torch.cat([_bump(side // 2, side, x), -_bump(side - side // 2, side, x)])
    return pair / pair.norm()


def _channel_norm(t: Tensor) -> Tensor:
    """Euclidean norm of each channel: (n, c, h, w) -> (n, c, 1, 1)."""
    return t.flatten(2).norm(dim=2)[:, :, None, None]


_MOVES = {Linf.name: (_stripes, _recolor_square), L2.name: (_tiles, _move_norm)}
