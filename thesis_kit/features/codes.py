"""Sparse codes in place of units: more directions than a layer has units, few of which are used at a time.

A sparse autoencoder of Gao et al. ("Scaling and evaluating sparse autoencoders", ICLR 2025): of all codes of a token
the k largest are kept, and from their directions the token is built again. Left out here are what large ones need, an
auxiliary loss that revives dead codes above all; how many are dead is told instead.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.checks import check_count, check_eps, check_finite

_DECAY = 0.3  # share of the steps, at the end, in which the rate falls to 0


class SparseCodes:
    """A dictionary of ``width`` directions among u units, of which k are used at a time; see ``learn``."""

    def __init__(self, mean: Tensor, scale: Tensor, encoder: Tensor, bias: Tensor, decoder: Tensor, k: int):
        self._mean, self._scale = mean, scale  # of the units, (u,) and ()
        self._encoder, self._bias, self.directions, self.k = encoder, bias, decoder, k  # (m, u), (m,), (m, u)

    def encode(self, a: Float[Tensor, "*t u"]) -> Float[Tensor, "*t m"]:
        """Codes of some tokens: none negative, at most k of a token above 0."""
        if a.ndim == 0 or a.shape[-1] != len(self._mean):
            raise ValueError(f"tokens must have {len(self._mean)} units as their last dimension, got {tuple(a.shape)}")
        return _largest(((a.to(self._mean) - self._mean) / self._scale) @ self._encoder.T + self._bias, self.k)

    def decode(self, codes: Float[Tensor, "*t m"]) -> Float[Tensor, "*t u"]:
        """Tokens as they are built from codes."""
        return (codes @ self.directions) * self._scale + self._mean

    def explained(self, a: Float[Tensor, "n u"]) -> float:
        """The share of the variance of some tokens, around their mean, that is left when they are built again."""
        check_finite(a, "(n, u)", what="tokens")
        if not len(a) > 1:
            raise ValueError("one token alone has no variance: give several")
        lost = (self.decode(self.encode(a)) - a).square().sum()
        return (1 - lost / (a - a.mean(dim=0)).square().sum()).item()


def learn(
    a: Float[Tensor, "n u"], width: int, k: int, *, steps: int = 1000, batch: int = 1024, lr: float = 2e-3,
    seed: int = 0,
) -> SparseCodes:  # fmt: skip
    """Learn a dictionary of a layer's tokens, by as many steps of Adam on their mean squared error.

    With ``steps=0`` it stays as it was drawn, random directions that read and write alike: the control.

    Args:
        a: tokens, a row each, as of ``recording.record`` flattened.
        width: directions. k: those of a token that are used.
        batch: tokens a step. lr: from which the last third of steps goes down to 0. seed: of the start and the order.

    Raises:
        ValueError: k above the width; tokens that are all the same. NonFiniteOutput: tokens that are not finite.

    Examples:
        >>> tokens = torch.randn(256, 6)
        >>> found = tk.features.codes.learn(tokens, width=12, k=2, steps=2)
        >>> (found.encode(tokens) > 0).sum(dim=1).max().item() <= 2
        True
    """
    check_count(width, what="width"), check_count(k, what="k"), check_count(batch, what="batch")
    check_count(steps, what="steps", least=0), check_eps(lr, what="lr")
    if k > width:
        raise ValueError(f"of {width} codes at most {width} can be used at a time, got k = {k}")
    check_finite(a, "(n, u)", what="tokens")
    a = a.detach()
    mean = a.mean(dim=0)
    scale = (a - mean).square().mean().sqrt()
    if not len(a) > 1 or scale == 0:
        raise ValueError(f"the {len(a)} tokens are all the same: give those of several images")
    random = torch.Generator().manual_seed(seed)
    start = F.normalize(torch.randn(width, a.shape[1], generator=random), dim=1).to(a)
    encoder, decoder = start.clone().requires_grad_(), start.clone().requires_grad_()
    bias = torch.zeros(width, device=a.device, dtype=a.dtype, requires_grad=True)
    adam = torch.optim.Adam([encoder, decoder, bias], lr=lr)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = lr * min(1.0, (steps - step) / (_DECAY * steps))
        chosen = torch.randint(len(a), (batch,), generator=random).to(a.device)
        x = (a[chosen] - mean) / scale  # (batch, u)
        with torch.enable_grad():
            loss = (_largest(x @ encoder.T + bias, k) @ decoder - x).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            decoder.div_(decoder.norm(dim=1, keepdim=True))  # else codes shrink and directions grow
    return SparseCodes(mean, scale, encoder.detach(), bias.detach(), decoder.detach(), k)


def _largest(codes: Tensor, k: int) -> Tensor:
    """The k largest of the last dimension where they are above 0, and 0 for all others."""
    value, index = codes.topk(k, dim=-1)
    return torch.zeros_like(codes).scatter(-1, index, value.relu())
