"""Verified error: the share of images without a proof that they are classified rightly in their whole box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import scipy
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from thesis_kit.asking import Model
from thesis_kit.certification.bounds.margins import BOUNDS
from thesis_kit.checks import check_count, check_labels, choose
from thesis_kit.files import Saved
from thesis_kit.files.tensors import bits, from_bits
from thesis_kit.progress import track


@dataclass(frozen=True)
class Verification(Saved):
    """Which images are proved to be classified rightly in their whole box: ``verified`` (n,) bool.

    ``bound`` names the bound that proved it, ``eps`` is the ℓ∞ radius of the boxes. ``print`` it for a table;
    ``save(path)`` and ``Verification.load(path)`` keep it.
    """

    verified: Bool[Tensor, " n"]
    eps: float
    bound: str

    @property
    def error(self) -> float:
        """Verified error: the share of images without a proof, those that are classified wrongly included."""
        return 1 - self.verified.double().mean().item()

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of ``error``."""
        found = scipy.stats.binomtest(int((~self.verified).sum()), len(self.verified)).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        proved, n, (low, high) = int(self.verified.sum()), len(self.verified), self.interval
        rows = [("verified", proved, 1 - high, 1 - low), ("verified error", n - proved, low, high)]
        table = [
            f"{what:<16} {count:>6,} of {n:,}  {100 * count / n:5.1f}%  [{100 * first:.1f}, {100 * last:.1f}]"
            for what, count, first, last in rows
        ]
        return "\n".join([f"ℓ∞ boxes of radius {self.eps:.4g}, bound {self.bound}", *table])

    def record(self) -> dict[str, Any]:
        """Everything the value is made of, as JSON can hold it."""
        return {"bound": self.bound, "eps": float(self.eps), "verified": bits(self.verified)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Verification:
        """The value that ``record`` came from."""
        return cls(from_bits(record["verified"]), record["eps"], record["bound"])


def verified_error(
    model: Model, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], eps: float, *, bound: str = "crown-ibp",
    batch_size: int = 256, progress: bool | None = None,
) -> Verification:  # fmt: skip
    """Find the images that are certainly classified rightly within ℓ∞ radius ``eps``: all margins bounded above 0.

    Args:
        model, x, y, eps: as for ``ibp_margins``.
        bound: "ibp", "crown-ibp", "crown" or "crown-pure", a name of ``BOUNDS``.
        batch_size: images at a time.
        progress: show a bar; None follows the session.

    Raises:
        ValueError: there are no images; and what ``ibp_margins`` raises. UnknownName: there is no such bound.

    Examples:
        >>> found = tk.certification.verified_error(model, digits.x, digits.y, 0.001)
        >>> found.verified.shape
        torch.Size([4])
    """
    margins = choose(bound, BOUNDS, "bound")
    check_count(batch_size, what="batch_size")
    check_labels(y, len(x))
    if len(x) == 0:
        raise ValueError("there are no images to verify: give at least one")
    verified = []
    with torch.no_grad(), track("verifying", len(x), progress) as bar:
        for some, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            positive = margins(model, some, labels, eps) > 0
            verified.append(positive.scatter(1, labels.unsqueeze(1), True).all(dim=1))
            bar.advance(len(some))
    return Verification(torch.cat(verified), eps, bound)
