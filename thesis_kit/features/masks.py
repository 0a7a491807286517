"""Pictures without their object, without their background, or with a hole in them, and how a map agrees with a mask.

A hole is not an absence: the exact silhouette of an object, cut out, still is its shape, and a network reads it there.
Where the world is drawn (``data.scenes``) an object can be left out instead, and be set before another background.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.checks import check_finite, check_images, choose
from thesis_kit.data.scenes import Scenes, render
from thesis_kit.data.scenes.vocabulary import BACKGROUNDS, NOTHING
from thesis_kit.randomness import ImageRandom

FILLS = ("black", "mean", "noise")
FORMS = ("mask", "box")
_SWAPS = 211  # stream of a seed
_ROUNDING = 1e-10  # of a map's energy: what single precision leaves of a flat one


def without_object(scenes: Scenes) -> Float[Tensor, "n 3 s s"]:
    """The same scenes drawn without their objects and shadows: what a background alone looks like.

    Examples:
        >>> from thesis_kit.features.masks import without_object
        >>> scenes = tk.data.scenes.DISTRIBUTIONS["scenes.v1-a"].draw(2, 32, seed=0)
        >>> without_object(scenes).shape
        torch.Size([2, 3, 32, 32])
    """
    empty = torch.full_like(scenes.table.shape, NOTHING)
    return render(replace(scenes.table, shape=empty), scenes.images.shape[-1]).images


def swapped(scenes: Scenes, seed: int = 0) -> Float[Tensor, "n 3 s s"]:
    """The same objects before another background pattern than their own, of the distribution's others equally often.

    The tint stays, for every object stands out from its own.

    Raises:
        ValueError: the distribution has one background.

    Examples:
        >>> from thesis_kit.features.masks import swapped
        >>> scenes = tk.data.scenes.DISTRIBUTIONS["scenes.v1-a"].draw(2, 32, seed=0)
        >>> swapped(scenes, seed=0).shape
        torch.Size([2, 3, 32, 32])
    """
    names, table = list(BACKGROUNDS), scenes.table
    known = torch.tensor([names.index(name) for name in scenes.distribution.backgrounds]).to(table.background.device)
    if len(known) < 2:
        raise ValueError(f"{scenes.distribution.name} has one background alone: there is none to swap it with")
    own = (table.background[:, None] == known).int().argmax(dim=1)
    step = 1 + ImageRandom(seed, table.ids).fork(_SWAPS).integers(high=len(known) - 1)
    return render(replace(table, background=known[(own + step) % len(known)]), scenes.images.shape[-1]).images


def hole(
    x: Float[Tensor, "n c h w"], mask: Float[Tensor, "n h w"], *, fill: str = "black", form: str = "mask", seed: int = 0
) -> Float[Tensor, "n c h w"]:
    """Images whose object is filled: the background, with a hole.

    Args:
        x: images in [0, 1]. mask: the share of each pixel in which the object is seen.
        fill: "black", "mean" (the mean color of what is left) or "noise" (uniform).
        form: "mask", the exact silhouette, or "box", the smallest box around it, as in the paper's experiment.
        seed: of the noise.

    Raises:
        ValueError: masks of another size or outside [0, 1].

    Examples:
        >>> from thesis_kit.features import masks
        >>> masks.hole(torch.ones(1, 1, 1, 3), torch.tensor([[[0.0, 1.0, 0.0]]]))
        tensor([[[[1., 0., 1.]]]])
    """
    return _filled(x, _removed(x, mask, form), fill, seed)


def cut_out(
    x: Float[Tensor, "n c h w"], mask: Float[Tensor, "n h w"], *, fill: str = "black", form: str = "mask", seed: int = 0
) -> Float[Tensor, "n c h w"]:
    """Images of which the object alone is left; arguments as for ``hole``, filled is all around it.

    Examples:
        >>> from thesis_kit.features import masks
        >>> masks.cut_out(torch.ones(1, 1, 1, 3), torch.tensor([[[0.0, 1.0, 0.0]]]))
        tensor([[[[0., 1., 0.]]]])
    """
    return _filled(x, 1 - _removed(x, mask, form), fill, seed)


def _removed(x: Tensor, mask: Tensor, form: str) -> Tensor:
    """The share of each pixel that the object's silhouette or box takes, (n, 1, h, w)."""
    check_images(x), choose(form, FORMS, "form of a hole")
    check_masks(mask, len(x), tuple(x.shape[-2:]))
    if form == "mask":
        return mask[:, None].to(x)
    seen = mask >= 0.5
    rows, columns = seen.any(dim=2), seen.any(dim=1)  # (n, h), (n, w)
    inside = _between(rows)[:, :, None] & _between(columns)[:, None, :]
    return inside[:, None].to(x)


def _between(there: Tensor) -> Tensor:
    """True from the first to the last place that is, (n, length)."""
    return there.cumsum(dim=1).bool() & there.flip(1).cumsum(dim=1).bool().flip(1)


def _filled(x: Tensor, removed: Tensor, fill: str, seed: int) -> Tensor:
    choose(fill, FILLS, "fill")
    kept = 1 - removed
    if fill == "black":
        return x * kept
    if fill == "mean":
        color = (x * kept).sum(dim=(2, 3), keepdim=True) / kept.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)
    else:
        color = ImageRandom(seed, torch.arange(len(x), device=x.device)).uniform(*x.shape[1:], dtype=x.dtype)
    return x * kept + color * removed


def check_masks(mask: Tensor, n: int, size: tuple[int, int]) -> None:
    """Require one mask an image, of the images' size and in [0, 1].

    Examples:
        >>> from thesis_kit.features import masks
        >>> masks.check_masks(torch.zeros(2, 8, 8), 2, (8, 8))
    """
    _check_tensor(mask)
    if mask.shape != (n, *size):
        raise ValueError(f"masks must be of the images' size, {(n, *size)}, got {tuple(mask.shape)}: resize them first")
    if mask.numel() and not (mask.min() >= 0 and mask.max() <= 1):
        raise ValueError(f"masks must lie in [0, 1], got [{mask.min():.3g}, {mask.max():.3g}]")


def _check_tensor(mask: Tensor) -> None:
    if not isinstance(mask, Tensor):
        raise TypeError(f"masks must be a tensor (n, h, w), got {type(mask).__name__}: convert with torch.as_tensor")


def mask_correlation(maps: Float[Tensor, "n u r c"], mask: Float[Tensor, "n h w"]) -> Float[Tensor, " u"]:
    """Absolute correlation of units' maps with masks over all patches of all images, free of position and image.

    Both are centered over images at every patch and over patches in every image: objects stand in the middle more often
    than not, and so does whatever prefers the middle. A unit whose map is always flat has none (NaN).

    Args:
        maps: of u units at patches (``features.maps``). mask: brought to the patches by its mean over each.

    Raises:
        ValueError: not one mask an image.

    Examples:
        >>> from thesis_kit.features import masks
        >>> mask = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)).round()
        >>> masks.mask_correlation(mask[:, None], mask)
        tensor([1.], dtype=torch.float64)
    """
    check_finite(maps, "(n, u, rows, columns)", what="maps"), _check_tensor(mask)
    if mask.ndim != 3 or len(mask) != len(maps):
        raise ValueError(f"there must be one mask an image, ({len(maps)}, h, w), got {tuple(mask.shape)}")
    check_finite(mask.float(), "(n, h, w)", what="masks")
    small = F.interpolate(mask[:, None].float(), maps.shape[-2:], mode="area")  # (n, 1, r, c)
    fires, there = (_centered(part) for part in (maps, small))
    every, known = (0, 2, 3), torch.float64
    both, masked = (fires * there).sum(every, dtype=known), there.square().sum(dtype=known)
    own, raw = (part.square().sum(every, dtype=known) for part in (fires, maps))
    flat = (own <= _ROUNDING * raw) | (own == 0) | (masked == 0)
    return torch.where(flat, torch.nan, both.abs() / (own * masked).sqrt())


def _centered(maps: Tensor) -> Tensor:
    maps = maps - maps.mean(dim=0)
    return maps - maps.mean(dim=(2, 3), keepdim=True)
