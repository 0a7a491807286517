"""Projected gradient descent and its one-step ancestor, FGSM.

PGD (Madry et al. 2018, section 2.1): start at a random point of the ball, take steps of fixed size in the
steepest direction, come back into the ball after each. FGSM (Goodfellow et al. 2015, eq. 1) is one full step
from the image.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from thesis_kit.asking import Model, borrowed
from thesis_kit.attacks.losses import Loss
from thesis_kit.attacks.norms import within_ball
from thesis_kit.attacks.objective import Goal, ascent, best_of, prepare, score
from thesis_kit.checks import check_count, check_eps
from thesis_kit.randomness import ImageRandom, image_random


def pgd(
    model: Model,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | None = None,
    loss: str | Loss = "ce",
    restarts: int = 1,
    random_start: bool = True,
    target: Int[Tensor, " n"] | None = None,
    generator: torch.Generator | ImageRandom | None = None,
) -> Float[Tensor, "n c h w"]:
    """Return images within ``eps`` of ``x`` that the model classifies worse, by projected gradient ascent.

    Each restart ends at its last iterate. Over restarts an iterate that reaches the goal (any wrong class, or
    the target) wins; among the others, the one of highest loss. Images that are done are not attacked again.

    Args:
        model: pixels in [0, 1] to logits (n, k), a module or a function; asked in evaluation mode and left as
            found, buffers included. Training that wants batch statistics in its attacks wraps it in ``KeepMode``.
        x: images in [0, 1].
        y: true labels.
        eps: radius of the ball, in pixel units (8/255 for the CIFAR-10 standard).
        norm: "linf" or "l2".
        steps: gradient steps per restart; each costs one forward and one backward pass.
        step_size: length of a step in the norm's unit; eps/4 unless given.
        loss: "ce", "margin", "dlr", or any callable (logits, y) -> (n,).
        restarts: how often to start anew; needs ``random_start`` to be of use.
        random_start: start uniformly in the ball instead of at x.
        target: classes to reach instead; then the loss of the target is made small.
        generator: a ``torch.Generator`` or ``ImageRandom``; None draws from torch's default generator.

    Returns:
        Adversarial images, in [0, 1] exactly and with ‖δ‖ ≤ eps(1 + 1e-6) + 1e-7.

    Raises:
        ValueError, TypeError: what was seen and what to do, before or at the first step.

    Source: Madry et al. 2018, section 2.1.

    Examples:
        >>> adversarial = tk.attacks.pgd(model, digits.x, digits.y, eps=0.2, steps=10)
        >>> (model(adversarial).argmax(dim=1) == digits.y).tolist()
        [False, False, False, False]
    """
    model, x, goal, ball = prepare(model, x, y, eps=eps, norm=norm, loss=loss, target=target)
    check_count(steps, what="steps", least=0)
    check_count(restarts, what="restarts")
    step_size = eps / 4 if step_size is None else step_size
    check_eps(step_size, what="step_size")
    random = image_random(generator, x)
    if len(x) == 0:
        return x.clone()

    def climb(x: Tensor, goal: Goal, random: ImageRandom) -> Tensor:
        x_adv = ball.random_start(random, x, eps) if random_start else x
        for step in range(steps):
            gradient, _, _ = ascent(model, x_adv, goal, check=step == 0)
            x_adv = ball.project(x_adv + step_size * ball.direction(gradient), x, eps)
        return within_ball(x_adv, x, eps, ball)

    def attempt(_: int, left: Tensor, random: ImageRandom) -> tuple[Tensor, Tensor, Tensor]:
        x_adv = climb(x[left], goal[left], random)
        return x_adv, *score(model, x_adv, goal[left])

    with borrowed(model, "PGD"):
        if restarts == 1:
            return climb(x, goal, random.fork(0))
        return best_of(x, random, restarts, attempt)


def fgsm(
    model: Model,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    eps: float,
    norm: str = "linf",
    loss: str | Loss = "ce",
    target: Int[Tensor, " n"] | None = None,
    generator: torch.Generator | ImageRandom | None = None,
) -> Float[Tensor, "n c h w"]:
    """Return the images after one full step of length ``eps`` in the steepest direction; see ``pgd``.

    Source: Goodfellow et al. 2015, eq. 1 (the fast gradient sign method); with ``norm="l2"`` its Euclidean
        twin.

    Examples:
        >>> adversarial = tk.attacks.fgsm(model, digits.x, digits.y, eps=0.1)
        >>> bool((adversarial - digits.x).abs().max() <= 0.1 + 1e-6)
        True
    """
    return pgd(
        model, x, y, eps=eps, norm=norm, steps=1, step_size=eps, loss=loss, random_start=False, target=target,
        generator=generator,
    )  # fmt: skip
