"""What a network needs of fine detail: images without it, and gratings that ask a unit which frequency it prefers."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.checks import check_count, check_finite, check_images


def low_pass(x: Float[Tensor, "n c h w"], cutoff: float) -> Float[Tensor, "n c h w"]:
    """Images of which frequencies above ``cutoff`` cycles along the longer side are gone, clipped to [0, 1].

    The edge is sharp, so that contours have faint echoes; 0 leaves the mean color.

    Examples:
        >>> from thesis_kit.features import frequency
        >>> frequency.low_pass(torch.rand(2, 3, 16, 16), cutoff=4).shape
        torch.Size([2, 3, 16, 16])
    """
    check_images(x)
    real = isinstance(cutoff, numbers.Real) and not isinstance(cutoff, bool)
    if not (real and math.isfinite(cutoff) and cutoff >= 0):
        raise ValueError(f"cutoff must be a finite number of cycles of at least 0, got {cutoff!r}")
    if x.numel() == 0:
        return x.clone()
    height, width = x.shape[-2:]
    rows = torch.fft.fftfreq(height, device=x.device) * max(height, width)
    columns = torch.fft.rfftfreq(width, device=x.device) * max(height, width)
    kept = torch.hypot(rows[:, None], columns[None, :]) <= cutoff
    return torch.fft.irfft2(torch.fft.rfft2(x.double()) * kept, s=(height, width)).clamp(0, 1).to(x.dtype)


@dataclass(frozen=True)
class Gratings:
    """Sine waves: ``images`` (m, 3, s, s) in [0, 1], and of each its ``frequency`` in cycles an image, its
    ``orientation`` and ``phase`` in radians, all (m,)."""

    images: Tensor
    frequency: Tensor
    orientation: Tensor
    phase: Tensor


def gratings(
    size: int, frequencies: Sequence[float] | None = None, *, orientations: int = 4, phases: int = 4,
    contrast: float = 0.8,
) -> Gratings:  # fmt: skip
    """Gray gratings of every frequency, orientation and phase.

    Args:
        size: side in pixels. frequencies: in cycles an image; 1, 2, 4, … below half the side unless given.
        orientations, phases: how many, evenly spaced. contrast: from the darkest to the brightest, in (0, 1].

    Raises:
        ValueError: a frequency that the pixels cannot show, or numbers that cannot be meant.

    Examples:
        >>> from thesis_kit.features import frequency
        >>> frequency.gratings(16, [1.0, 2.0]).images.shape
        torch.Size([32, 3, 16, 16])
    """
    check_count(size, what="size", least=4), check_count(orientations, what="orientations")
    check_count(phases, what="phases")
    octaves = [2.0**k for k in range(math.ceil(math.log2(size / 2)))]
    given = octaves if frequencies is None else list(map(float, frequencies))
    if not given or min(given) <= 0 or max(given) > size / 2 or not 0 < contrast <= 1:
        raise ValueError(
            f"frequencies must lie in (0, {size / 2:g}] cycles for {size} pixels and contrast in (0, 1], got {given} "
            f"and {contrast}"
        )
    turns = [math.pi * k / orientations for k in range(orientations)]
    shifts = [2 * math.pi * k / phases for k in range(phases)]
    table = torch.cartesian_prod(*(torch.tensor(t, dtype=torch.float64) for t in (given, turns, shifts)))
    frequency, orientation, phase = table.view(-1, 3).T
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    along = orientation.cos()[:, None, None] * place + orientation.sin()[:, None, None] * place[:, None]
    wave = (2 * math.pi * frequency[:, None, None] * along + phase[:, None, None]).sin()
    images = (0.5 + 0.5 * contrast * wave).float()[:, None].expand(-1, 3, -1, -1).contiguous()
    return Gratings(images, frequency, orientation, phase)


def preferred_frequency(a: Float[Tensor, "m u"], shown: Gratings) -> Float[Tensor, " u"]:
    """The frequency, in cycles an image, to which each unit answers most.

    Of every frequency counts the orientation with the largest mean over phases. A unit that answers all frequencies
    alike has none (NaN).

    Examples:
        >>> from thesis_kit.features import frequency
        >>> shown = frequency.gratings(16, [1.0, 4.0])
        >>> frequency.preferred_frequency((shown.frequency == 4)[:, None].float(), shown)
        tensor([4.])
    """
    check_finite(a, "(m, u)", what="activations")
    if len(a) != len(shown.frequency):
        raise ValueError(f"there must be a row for each of {len(shown.frequency)} gratings, got {len(a)}")
    known = shown.frequency.unique()
    best = []
    for frequency in known:
        ways = [
            a[((shown.frequency == frequency) & (shown.orientation == turn)).to(a.device)].mean(dim=0)
            for turn in shown.orientation.unique()
        ]
        best.append(torch.stack(ways).amax(dim=0))
    answers = torch.stack(best)  # (frequencies, u)
    flat = answers.amax(dim=0) - answers.amin(dim=0) <= 1e-6 * answers.abs().amax(dim=0)
    return torch.where(flat, torch.nan, known.to(a)[answers.argmax(dim=0)])
