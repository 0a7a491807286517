"""What an attack makes large: losses ``(logits, y) -> (n,)`` that grow as the label y loses to another class.

Cross-entropy saturates when logits are scaled up; the margin and the difference-of-logits-ratio (DLR; Croce
and Hein 2020, eq. 6) do not, and DLR is also blind to the logits' scale. An attack accepts any callable of
this form.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """−log softmax(z)_y: (n, k), (n,) -> (n,).

    Examples:
        >>> tk.attacks.cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
        tensor([0.6931])
    """
    return F.cross_entropy(logits, y, reduction="none")


def _label_and_rival(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """z_y and max over c ≠ y of z_c."""
    label = logits.gather(1, y[:, None])  # (n, 1)
    rival = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return label[:, 0], rival


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{c≠y} z_c − z_y, positive exactly where another class wins: (n, k), (n,) -> (n,).

    Source: Carlini and Wagner 2017, section IV.A (f_6 without its floor).

    Examples:
        >>> tk.attacks.margin(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]))
        tensor([-2.])
    """
    label, rival = _label_and_rival(logits, y)
    return rival - label


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """−(z_y − max_{c≠y} z_c) / (z_π1 − z_π3), π sorting the logits downwards: (n, k), (n,) -> (n,).

    Invariant to shift and scale. With two classes there is no third logit and the loss is the plain margin,
    whose comparisons and gradient directions do not depend on the scale either.

    Source: Croce and Hein 2020, eq. 6.

    Examples:
        >>> tk.attacks.dlr(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]))
        tensor([-0.6667])
    """
    label, rival = _label_and_rival(logits, y)
    return (rival - label) / _spread(logits, slice(2, 3))


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """−(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2) for the class t to reach: (n, k), (n,), (n,) -> (n,).

    With three classes z_π2 and z_π3 are averaged instead: over z_π1 − z_π3 the loss would be −1, without any
    slope, while t is the least likely. With two classes it is the plain margin, as in ``dlr``.

    Source: Croce and Hein 2020, eq. 7.

    Examples:
        >>> tk.attacks.targeted_dlr(torch.tensor([[4.0, 2.0, 1.0, 1.0]]), torch.tensor([0]), torch.tensor([1]))
        tensor([-0.6667])
    """
    gap = logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])  # (n, 1)
    return gap[:, 0] / _spread(logits, slice(1, 3) if logits.shape[1] == 3 else slice(2, 4))


def _spread(logits: Tensor, ranks: slice) -> Tensor:
    """z_π1 minus the mean of the logits at these ranks: (n, k) -> (n,); 1 if there are two classes.

    Where they tie it is held at the logits' rounding error, so that neither the ratio nor its slope overflows.
    """
    if logits.shape[1] == 2:
        return torch.ones_like(logits[:, 0])
    ordered = logits.sort(dim=1, descending=True).values
    spread = ordered[:, 0] - ordered[:, ranks].mean(dim=1)
    precision = torch.finfo(logits.dtype)
    rounding = logits.detach().abs().amax(dim=1) * precision.eps
    return torch.maximum(spread, rounding.clamp_min(precision.tiny**0.5))


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}
