"""How sure a number about units is that was measured on some images, by a jackknife over groups of them.

Units of one network share its images, so that they are no independent sample; what is drawn anew here is the images.
A bootstrap would draw an image twice, and the two would be the most alike of all; the jackknife only leaves images out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import scipy
import torch
from jaxtyping import Int
from torch import Tensor

from thesis_kit.checks import NonFiniteOutput, check_count

_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with the two ends of its 95% interval; as text "0.43 (0.40 to 0.46)"."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:z.2f} ({self.low:z.2f} to {self.high:z.2f})"


def over_images(number: Callable[[Int[Tensor, " m"]], float], n: int, *, parts: int = 20, seed: int = 0) -> Estimate:
    """A number that was measured on n images, with a 95% interval for other images of the same kind.

    Of one network: other networks are not among what could have come out otherwise.

    Args:
        number: positions (m,) of images, ascending -> what is measured on these, such as a mean over all units.
        n: how many images there are.
        parts: groups of images, drawn by the seed, that are left out in turn.

    Raises:
        ValueError: fewer images than groups. NonFiniteOutput: a number that is not finite.

    Source: the delete-a-group jackknife with Student's t of ``parts`` − 1 degrees of freedom (Kott 2001).

    Examples:
        >>> a = torch.tensor([0.0, 1.0, 2.0, 3.0])
        >>> print(tk.features.over_images(lambda chosen: a[chosen].mean().item(), len(a), parts=4))
        1.50 (-0.55 to 3.55)
    """
    check_count(n, what="n"), check_count(parts, what="parts", least=2)
    if parts > n:
        raise ValueError(f"{n} images cannot be cut into {parts} groups: give more images, or fewer parts")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    group = torch.empty(n, dtype=torch.int64)
    group[order] = torch.arange(n) % parts
    whole = float(number(torch.arange(n)))
    without = torch.tensor([float(number((group != k).nonzero()[:, 0])) for k in range(parts)], dtype=torch.float64)
    if not torch.isfinite(torch.cat([without, torch.tensor([whole])])).all():
        raise NonFiniteOutput("the number is NaN or infinity on some of the images: leave dead units out of it")
    error = ((parts - 1) * without.var(correction=0)).sqrt().item()
    half = error * float(scipy.stats.t.ppf((1 + _LEVEL) / 2, parts - 1))
    return Estimate(whole, whole - half, whole + half)
