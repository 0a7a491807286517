"""Terms that a loss can have beside cross-entropy: label smoothing, logit squeezing, logit pairing and kin.

Each is an object called as ``term(model, x, y, logits)``, where ``logits`` (n, k) are the model's at the images x that
a method trains on, and returns one number; ``training.train(..., terms=[...])`` adds them to the cross-entropy of any
method. Training on noisy images alone is a method of its own, ``training.Gaussian``.

Sources: label smoothing and logit squeezing with noise as a defense, Shafahi, Ghiasi, Huang and Goldstein (arXiv
1910.11585); logit pairing and the other normalization of squeezing, Kannan, Kurakin and Goodfellow (arXiv 1803.06373,
recalled) as evaluated by Mosbach et al. (arXiv 1810.12042). ``LogitSimilarity`` and ``GradientGap`` are ours.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from thesis_kit.asking import KeepMode, ask
from thesis_kit.attacks.norms import NORMS
from thesis_kit.attacks.pgd import pgd
from thesis_kit.checks import check_count, check_eps, choose
from thesis_kit.training.precision import InPrecision

_NORMALIZATIONS = ("frobenius", "mean")
_SCALE = 2.0**16  # of an attack's loss in float16


@dataclass(frozen=True)
class LabelSmoothing:
    """Cross-entropy with labels y_hot − α (y_hot − 1/K), written as what it adds to the plain one.

    That is α times the mean gap between the label's logit and the mean logit: smoothing is a penalty on the gap, linear
    and without end, where cross-entropy's own pull on it fades.

    Args:
        alpha: 0 leaves the labels as they are, 1 makes them uniform.

    Source: arXiv 1910.11585 for the range of α and its ends; the closed form is recalled.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not (isinstance(self.alpha, numbers.Real) and 0 <= self.alpha <= 1):
            raise ValueError(f"alpha must lie in [0, 1], got {self.alpha}: 0 is no smoothing, 1 are uniform labels")

    def __call__(
        self, model: nn.Module, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], logits: Float[Tensor, "n k"]
    ) -> Float[Tensor, ""]:
        """α · mean over images of z_y − mean over classes of z_c."""
        label = logits.gather(1, y[:, None])[:, 0]
        return self.alpha * (label - logits.mean(dim=1)).mean()


@dataclass(frozen=True)
class LogitSqueezing:
    """A penalty on the size of the logits.

    Two normalizations are published. "frobenius" is β ‖Z‖_F of the minibatch's whole matrix of logits (arXiv
    1910.11585); "mean" is β times the mean over images of ‖z_i‖₂ (Mosbach et al.). Where all images have logits of one
    length, ‖Z‖_F = √n · mean ‖z_i‖₂, so a β of the first is as strong as √n β of the second, at least; a Frobenius
    β belongs to one batch size.

    Args:
        beta: weight, at least 0.
        norm: "frobenius" or "mean".
    """

    beta: float
    norm: str = "frobenius"

    def __post_init__(self) -> None:
        _check_weight(self.beta, "beta")
        choose(self.norm, _NORMALIZATIONS, "normalization")

    def __call__(
        self, model: nn.Module, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], logits: Float[Tensor, "n k"]
    ) -> Float[Tensor, ""]:
        """β ‖Z‖_F, or β · mean ‖z_i‖₂."""
        size = torch.linalg.vector_norm(logits) if self.norm == "frobenius" else _lengths(logits).mean()
        return self.beta * size


@dataclass(frozen=True)
class LogitSimilarity:
    """A penalty on what tells the logits of a minibatch's images apart: β · mean ‖z_i − mean_j z_j‖².

    Ours: a stand-in for *Batch-wise Logit-Similarity* (Shafahi, Ghiasi et al., BMVC 2019), whose formula we could not
    read. It shares with that title that equal logits cost nothing, whatever their size. A single image costs nothing.

    Args:
        beta: weight, at least 0.
    """

    beta: float

    def __post_init__(self) -> None:
        _check_weight(self.beta, "beta")

    def __call__(
        self, model: nn.Module, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], logits: Float[Tensor, "n k"]
    ) -> Float[Tensor, ""]:
        """β times the mean squared distance of the logits from their mean."""
        return self.beta * (logits - logits.mean(dim=0)).square().sum(dim=1).mean()


@dataclass(frozen=True)
class CleanLogitPairing:
    """Clean logit pairing: β · mean ‖z_i − z_j‖₂ over pairs of images, the first half of a minibatch with the second.

    Minibatches come in random order, so the pairs are random, of any classes. A single image has no partner and costs
    nothing.

    Args:
        beta: weight, at least 0.

    Source: arXiv 1803.06373, section 3 (recalled).
    """

    beta: float

    def __post_init__(self) -> None:
        _check_weight(self.beta, "beta")

    def __call__(
        self, model: nn.Module, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], logits: Float[Tensor, "n k"]
    ) -> Float[Tensor, ""]:
        """β times the mean distance of paired logits."""
        pairs = len(logits) // 2
        return self.beta * _lengths(logits[:pairs] - logits[pairs : 2 * pairs]).sum() / max(pairs, 1)


@dataclass(frozen=True)
class AdversarialLogitPairing:
    """Adversarial logit pairing: β · mean ‖z(x) − z(x')‖₂, where x' is a PGD example of x.

    Costs ``steps`` + 1 more passes an update, all in training mode. The images must lie in [0, 1], as PGD wants them.
    The start of PGD comes from torch's generator, which ``train`` seeds for each update.

    Args:
        beta: weight, at least 0.
        eps: radius of the ball, in pixel units.
        steps: of PGD. step_size: eps/4 unless given. norm: "linf" or "l2".

    Source: arXiv 1803.06373, section 3 (recalled).
    """

    beta: float
    eps: float
    steps: int = 7
    step_size: float | None = None
    norm: str = "linf"

    def __post_init__(self) -> None:
        _check_weight(self.beta, "beta"), choose(self.norm, NORMS, "norm")
        check_eps(self.eps, norm=self.norm)
        check_count(self.steps, what="steps")
        if self.step_size is not None:
            check_eps(self.step_size, what="step_size")

    def __call__(
        self, model: nn.Module, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], logits: Float[Tensor, "n k"]
    ) -> Float[Tensor, ""]:
        """β times the mean distance between an image's logits and its adversarial example's."""
        knobs = {"eps": self.eps, "steps": self.steps, "step_size": self.step_size, "norm": self.norm}
        x_adv = pgd(KeepMode(_attacked(model)), x.detach(), y, **knobs)
        return self.beta * _lengths(logits - ask(model, x_adv)).mean()


@dataclass(frozen=True)
class GaussianAugmentation:
    """Cross-entropy on noisy copies of the images, w · mean L(z(x + η), y) with η ~ N(0, σ² I), not clipped.

    As a term it goes with any method, adversarial ones too; to train on noisy images alone take ``training.Gaussian``,
    which needs one pass an update and not two. The noise comes from torch's generator, which ``train`` seeds for each
    update.

    Args:
        sigma: standard deviation of the noise, in units of pixels in [0, 1]. weight: w, at least 0.
    """

    sigma: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_weight(self.sigma, "sigma"), _check_weight(self.weight, "weight")

    def __call__(
        self, model: nn.Module, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], logits: Float[Tensor, "n k"]
    ) -> Float[Tensor, ""]:
        """w times the mean cross-entropy at x + η."""
        x = x.detach()
        return self.weight * F.cross_entropy(ask(model, x + self.sigma * torch.randn_like(x)), y)


@dataclass(frozen=True)
class GradientGap:
    """A penalty on the gradient gap: β · mean ‖∇_x z_y − ∇_x z_r‖₁, where r is the wrong class of largest logit.

    Ours, after the linear argument of arXiv 1910.11585: a sign step of size ε changes the margin z_y − z_r by ε times
    this norm, to first order. Costs one more forward and two more backward passes an update; of these the second, which
    goes through the first, is not counted.

    Args:
        beta: weight, at least 0.
    """

    beta: float

    def __post_init__(self) -> None:
        _check_weight(self.beta, "beta")

    def __call__(
        self, model: nn.Module, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], logits: Float[Tensor, "n k"]
    ) -> Float[Tensor, ""]:
        """β times the mean ℓ₁ norm of the margin's gradient."""
        x = x.detach().requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            z = ask(model, x)
        label = z.gather(1, y[:, None])[:, 0]
        rival = z.scatter(1, y[:, None], -torch.inf).amax(dim=1)
        (gradient,) = torch.autograd.grad((label - rival).sum(), x, create_graph=True)
        return self.beta * gradient.abs().flatten(1).sum(dim=1).mean()


def _attacked(model: nn.Module) -> nn.Module:
    """The model as an attack inside a loss needs it: in float16 small gradients at the images vanish unless scaled."""
    if isinstance(model, InPrecision) and model.precision == "float16":
        return InPrecision(model.model, model.precision, lambda: _SCALE)
    return model


def _lengths(rows: Tensor) -> Tensor:
    """Euclidean length of every row: (n, k) -> (n,)."""
    return torch.linalg.vector_norm(rows, dim=1)


def _check_weight(value: float, name: str) -> None:
    if not (isinstance(value, numbers.Real) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
