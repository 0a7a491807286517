"""Controls for whatever is said about units: directions drawn at random in place of the axes, and networks that learned
nothing.

A measure that a random direction of the same layer reaches says nothing about units, and one that a network with random
weights reaches says nothing about learning.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.asking import Model, as_module
from thesis_kit.checks import check_count
from thesis_kit.models.copying import copied
from thesis_kit.models.fresh import draw_anew, fixed_parameters
from thesis_kit.randomness import mix_seed

_SPREAD = 0.02  # standard deviation of tokens and positions, as timm and torchvision draw them
_OTHERS = 1  # stream of a seed


def rotation(width: int, k: int | None = None, *, seed: int = 0) -> Float[Tensor, "k width"]:
    """``k`` orthonormal rows of a random rotation of ``width`` units (all of them unless given), uniform (Haar).

    Raises:
        ValueError: k above the width.

    Examples:
        >>> rows = tk.features.rotation(5, 2)
        >>> torch.allclose(rows @ rows.T, torch.eye(2), atol=1e-6)
        True
    """
    k = width if k is None else k
    check_count(k, what="k")
    if k > width:
        raise ValueError(f"{width} units have at most {width} orthogonal directions, got k = {k}")
    drawn = torch.randn(width, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(drawn)
    return (q * r.diagonal().sign()).T.float()  # without the signs the rotation would not be uniform


def rotated(a: Float[Tensor, "n u"], seed: int = 0) -> Float[Tensor, "n u"]:
    """Activations in a random orthonormal basis: as many numbers, the same information, and no unit among them.

    Examples:
        >>> turned = tk.features.rotated(torch.eye(3), seed=0)
        >>> torch.allclose(turned.norm(dim=1), torch.ones(3))
        True
    """
    return a @ rotation(a.shape[1], seed=seed).to(a).T


def random_twin(model: Model, seed: int = 0) -> nn.Module:
    """A copy of the network that shares nothing with it, with weights as before training.

    Layers draw theirs by their own ``reset_parameters``. Of parameters that belong to no such layer, those of two and
    more dimensions, such as tokens and positions, are normal of standard deviation 0.02, and vectors, such as a layer
    scale, are set to their mean.

    Args:
        model: left as it is. seed: of the new weights; the caller's random state is left as it was.

    Raises:
        ValueError: a layer that cannot be drawn anew, or a network that cannot be copied.

    Examples:
        >>> twin = tk.features.random_twin(model, seed=0)
        >>> twin(digits.x).shape
        torch.Size([4, 10])
    """
    twin = copied(as_module(model))
    draw_anew(twin.modules(), seed)
    generator = torch.Generator().manual_seed(mix_seed(seed, _OTHERS))
    with torch.no_grad():
        for module in twin.modules():
            for name in fixed_parameters(module):
                parameter = module.get_parameter(name)
                several = sum(side > 1 for side in parameter.shape) > 1 or parameter.ndim > 2
                drawn = _SPREAD * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn if several else parameter.mean().expand_as(parameter))
    return twin
