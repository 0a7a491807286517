"""What synthesized images are worth: whether others recognize them, how near real images they are, how fine, how many
objects they show.

A network's inversion fools that network by construction, so it is judged by *verifiers* it has never met. Since noise
can transfer too, three measures stand beside the verifiers' word: the kernel distance to real images in a verifier's
features (KID, Bińkowski et al., ICLR 2018), the share of energy in high frequencies, and the number of separate places
that show the class.
"""

from __future__ import annotations

from collections.abc import Sequence

import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import Model, as_module, ask, evaluating
from thesis_kit.checks import (
    NonFiniteOutput,
    check_count,
    check_images,
    check_labels,
    check_logits,
    check_same_device,
)
from thesis_kit.models.anatomy import features

_FLAT = 1e-7  # standard deviation of pixels below which an image is of one color but for rounding


def recognized(
    verifiers: Sequence[Model], x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], *, batch_size: int = 256
) -> Float[Tensor, " n"]:
    """The share of verifiers that name each image's class; its mean over images is the measure V.

    Args:
        verifiers: pixels in [0, 1] to logits; none of them should have been used to make the images.
        x, y: images and the classes they were made for.
        batch_size: images a pass.

    Returns:
        (n,) shares in [0, 1] in float64, on the CPU. Classes are compared by number, so all verifiers must count them
        as y does.

    Raises:
        ValueError, TypeError: no verifier, or one that is not in a list; images or classes that cannot be meant.

    Examples:
        >>> tk.evaluation.recognized([model], digits.x, digits.y)
        tensor([1., 1., 1., 1.], dtype=torch.float64)
    """
    if isinstance(verifiers, nn.Module):
        raise TypeError("verifiers must be a list of networks: put the one into brackets")
    if not verifiers:
        raise ValueError("there is no verifier to ask: give at least one network")
    check_images(x), check_labels(y, len(x)), check_count(batch_size, what="batch_size")
    votes = torch.zeros(len(x), dtype=torch.float64)
    for verifier in map(as_module, verifiers):
        check_same_device(verifier, x)
        with evaluating(verifier), torch.no_grad():
            batches = zip(x.split(batch_size), y.split(batch_size), strict=True)
            right = [_names(verifier, some, labels) for some, labels in batches]
        votes += torch.cat(right).double().cpu()
    return votes / len(verifiers)


def _names(verifier: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether a verifier names each image's class, (n,) bool."""
    logits = ask(verifier, x)
    check_logits(logits, len(x)), check_labels(y, len(x), logits.shape[1], what="classes")
    return logits.argmax(dim=1) == y


def kid(
    ours: Float[Tensor, "n d"], theirs: Float[Tensor, "m d"], *,
    classes: tuple[Int[Tensor, " n"], Int[Tensor, " m"]] | None = None,
) -> float:  # fmt: skip
    """Kernel inception distance of two sets of features: the unbiased squared MMD of the cubic kernel (a·b/d + 1)³.

    Zero in expectation for sets of the same kind, whatever their sizes, and negative by chance; no number of images is
    too small to be unbiased, but few images scatter.

    Args:
        ours, theirs: features, a row an image.
        classes: of both sets, where each was made to hold equally many images of every class. Two images of one set are
            then of one class more rarely than two that were drawn freely, which alone would make the distance negative;
            pairs of one class and of two are weighed here as in free draws.

    Raises:
        ValueError: fewer than two images; features of two lengths; classes of which a set has not equally many images,
            or fewer than two.
        NonFiniteOutput: features are NaN or infinite.

    Source: Bińkowski, Sutherland, Arbel and Gretton, ICLR 2018, eq. 4; weighing by class is ours.

    Examples:
        >>> features = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
        >>> tk.evaluation.kid(features, features + 2) > tk.evaluation.kid(features, features)
        True
    """
    features_fit = ours.ndim == theirs.ndim == 2 and ours.shape[1] == theirs.shape[1] > 0
    if not features_fit or min(len(ours), len(theirs)) < 2:
        raise ValueError(
            f"the distance needs at least two images on each side with features of one length, got {tuple(ours.shape)} "
            f"and {tuple(theirs.shape)}"
        )
    if not (torch.isfinite(ours).all() and torch.isfinite(theirs).all()):
        raise NonFiniteOutput("features are NaN or infinite: look at the verifier's weights and precision")
    a, b = ours.double(), theirs.double()
    of_a, of_b = classes or (None, None)
    return float(_within(_cubic(a, a), of_a) + _within(_cubic(b, b), of_b) - 2 * _cubic(a, b).mean())


def _cubic(u: Tensor, v: Tensor) -> Tensor:
    return (u @ v.T / u.shape[1] + 1) ** 3


def _within(k: Tensor, classes: Tensor | None) -> Tensor:
    """The mean kernel of two different images of a set, drawn freely or as if they were."""
    apart = ~torch.eye(len(k), dtype=torch.bool, device=k.device)
    if classes is None:
        return k[apart].mean()
    check_labels(classes, len(k), what="classes")
    same = (classes[:, None] == classes).to(k.device)
    counts = same.sum(dim=1)
    if (counts < 2).any() or (counts != counts[0]).any():
        raise ValueError("the distance by class needs equally many images of every class, and at least two")
    share = same.double().mean()  # of pairs, an image with itself included: how often two free draws are of one class
    others = k[~same].mean() if (~same).any() else 0.0
    return share * k[same & apart].mean() + (1 - share) * others


def kid_of_images(
    verifier: nn.Module, ours: Float[Tensor, "n c h w"], real: Float[Tensor, "m c h w"], *, batch_size: int = 256,
    classes: tuple[Int[Tensor, " n"], Int[Tensor, " m"]] | None = None,
) -> float:  # fmt: skip
    """KID between images and real images in a verifier's penultimate features.

    Args:
        verifier: pixels in [0, 1] to logits.
        ours, real: images. The estimate is unbiased at any number, and scatters less with more.
        batch_size: images a pass.
        classes: of both sets, as in ``kid``.

    Raises:
        ValueError, TypeError: images that are none, and as ``kid``.

    Examples:
        >>> test = tk.data.digits(seed=0).test
        >>> near = tk.evaluation.kid_of_images(model, test.x[:50], test.x[50:100])
        >>> near < tk.evaluation.kid_of_images(model, 1 - test.x[:50], test.x[50:100])
        True
    """
    for images in (ours, real):
        check_images(images), check_same_device(verifier, images)
    check_count(batch_size, what="batch_size")
    with evaluating(verifier), torch.no_grad():
        sides = [torch.cat([features(verifier, some) for some in x.split(batch_size)]) for x in (ours, real)]
    return kid(*sides, classes=classes)


def high_frequency_share(x: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Share of each image's spectral energy, its mean left out, above half the Nyquist frequency (0.25 cycles a
    pixel); 0 where an image is flat but for rounding.

    It is per pixel: compare images of one size, for enlarging an image takes its share towards 0.

    Examples:
        >>> checkers = (torch.arange(8)[:, None] + torch.arange(8)) % 2
        >>> tk.evaluation.high_frequency_share(checkers[None, None].float())
        tensor([1.], dtype=torch.float64)
    """
    check_images(x)
    deviations = x.double() - x.double().mean(dim=(2, 3), keepdim=True)
    energy = torch.fft.fft2(deviations).abs().square()
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64, device=x.device) for side in x.shape[-2:])
    high = torch.hypot(rows[:, None], columns[None, :]) > 0.25
    total = energy.sum(dim=(1, 2, 3))
    told = deviations.square().mean(dim=(1, 2, 3)) > _FLAT**2
    return torch.where(told, (energy * high).sum(dim=(1, 2, 3)) / total.clamp_min(1e-300), 0.0)


def class_regions(
    verifier: Model,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    window: float = 0.5,
    steps: int = 9,
    surroundings: float = 0.5,
    batch_size: int = 256,
) -> Int[Tensor, " n"]:
    """In how many separate places a verifier sees each image's class.

    A square window walks over the image; what is outside is gray. Places of the window at which the verifier names the
    class and which lie side by side, not only corner to corner, make one region. There is none where it sees the class
    nowhere.

    Args:
        verifier: pixels in [0, 1] to logits.
        x, y: images and the classes they were made for.
        window: side of the window as a share of the image's.
        steps: places along each side.
        surroundings: the gray outside.
        batch_size: images a pass.

    Returns:
        (n,) counts, int64, on the CPU.

    Raises:
        ValueError, TypeError: images, classes or a window that cannot be meant.

    Source: ours.

    Examples:
        >>> tk.evaluation.class_regions(model, digits.x, digits.y, steps=3)
        tensor([1, 1, 2, 1])
    """
    verifier = as_module(verifier)
    check_images(x), check_labels(y, len(x)), check_same_device(verifier, x)
    check_count(steps, what="steps", least=2)
    check_count(batch_size, what="batch_size")
    if not 0 < window < 1:
        raise ValueError(f"window must be a share of the side between 0 and 1, got {window}")
    if not 0 <= surroundings <= 1:
        raise ValueError(f"surroundings must be a pixel in [0, 1], got {surroundings}")
    height, width = x.shape[-2:]
    tall, wide = max(1, round(window * height)), max(1, round(window * width))
    tops = torch.linspace(0, height - tall, steps).round().int().tolist()
    lefts = torch.linspace(0, width - wide, steps).round().int().tolist()
    seen = torch.zeros(len(x), steps, steps, dtype=torch.bool)
    with evaluating(verifier), torch.no_grad():
        for i, top in enumerate(tops):
            for j, left in enumerate(lefts):
                cut = x[..., top : top + tall, left : left + wide]
                borders = (left, width - left - wide, top, height - top - tall)
                laid = F.pad(cut, borders, value=surroundings)
                batches = zip(laid.split(batch_size), y.split(batch_size), strict=True)
                seen[:, i, j] = torch.cat([_names(verifier, some, labels) for some, labels in batches]).cpu()
    return torch.tensor([scipy.ndimage.label(places.numpy())[1] for places in seen], dtype=torch.int64)
