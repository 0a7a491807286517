"""Units of a network: which there are at a site, where in an image they fire, and what it means to excite one.

A unit is a number of a site (``recording.sites``) or any direction among a site's units, so that whatever is asked of
units can be asked of a rotated basis too. Class tokens and registers are left out: a unit is seen at the patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.asking import Model, as_module, plain
from thesis_kit.checks import check_images, choose
from thesis_kit.recording.batches import Run, check_inputs, recorder
from thesis_kit.recording.order import laid_out
from thesis_kit.recording.sites import Site, spread
from thesis_kit.recording.streaming import check_directions, check_units, given_units, only
from thesis_kit.recording.taps import lying_as
from thesis_kit.recording.watching import IMAGES, Watcher, seated, size_seen
from thesis_kit.synthesis import Objective

Units = Sequence[int] | Tensor
_REDUCERS = ("mean", "sum")


def site_of(model: Model, name: str) -> Site | None:
    """The site that a name stands for; None where it is a layer's.

    Raises:
        UnknownName: neither a site nor a layer has the name; near names are offered.
        ValueError: a site that cannot be recorded, such as q of an attention in windows.
    """
    name = only(name)
    return Watcher(as_module(model), [name]).site(name)


def maps(
    model: Model, x: Float[Tensor, "n c h w"], site: str, units: Units | None = None, *, run: Run | None = None
) -> Float[Tensor, "n k ..."]:
    """Each unit at every patch of some images: (n, k, rows, columns) where the patches form a grid, else (n, k, t).

    That tokens lie row by row is not taken for granted: a patch is changed, and one looks where that is noticed.

    Args:
        model, run: as for ``recording.record``.
        x: images in [0, 1], on the model's device.
        site: a name of ``recording.sites(model)``.
        units: numbers of units, or directions (k, u); None for all units.

    Raises:
        UnknownName, ValueError, TypeError: as ``recording.record``; units that the site does not have.

    Examples:
        >>> tk.features.maps(model, digits.x, "4", [0, 1]).shape
        torch.Size([4, 2, 4, 4])
    """
    check_images(x)
    model, site = as_module(model), only(site)
    check_inputs(model, x)
    with recorder(model, [site], run=run) as watcher:
        watcher(plain(x))
        value, place = watcher.standing(site)
    _check_no_map_of_tokens(place)
    seen = laid_out(spread(value, place), model, x, place, run=run)
    if units is None:
        return seen
    return _chosen(seen, given_units(units), site)


def excitation(model: Model, site: str, units: Units, *, over: str = "mean") -> Objective:
    """The activation of each target's unit over an image's patches, as an objective of ``synthesis`` to be maximized.

    Args:
        model: whose site it is. site, units: as for ``maps``; a unit, or direction, a target.
        over: "mean" or "sum" over the patches.

    Raises:
        UnknownName, ValueError: as ``maps``; later, units that the site does not have.

    Examples:
        >>> objective = tk.synthesis.maximize(tk.features.excitation(model, "4", [0, 1]))
        >>> made = tk.synthesis.synthesize(model, objective, channels=1, stages=tk.synthesis.Stage(8, 2))
        >>> made.images.shape
        torch.Size([2, 1, 8, 8])
    """
    choose(over, _REDUCERS, "way to take patches together")
    site = only(site)
    wanted, module = given_units(units), as_module(model)
    watcher = Watcher(module, [site])
    place = watcher.site(site) or watcher.heard_at(site)
    like = watcher.place(site) if place is None else None
    if place is not None and watcher.site(site) is None:
        site = place.name  # the site that listens to this layer
    _check_no_map_of_tokens(place)

    def read(seen: dict[str, Tensor], index: Tensor) -> Tensor:
        shape, value = seen[site].shape[:2], seen[site].flatten(0, 1).float()  # targets and copies; both in one row
        size = size_seen(module, seen[IMAGES].flatten(0, 1)) if IMAGES in seen else None
        lying = value if like is None else lying_as(value, like, len(value), site)
        known = place if lying is None else place or like
        value = value if lying is None else lying
        patches = spread(value, known and seated(known, value, size)).flatten(2)  # (n · e, u, patches)
        asked = wanted.to(patches.device)[index]
        check = check_directions if wanted.is_floating_point() else check_units
        rows = check(asked, patches.shape[1], site).repeat_interleave(shape[1], dim=0)
        if wanted.is_floating_point():
            along = torch.einsum("nup,nu->np", patches, rows.to(patches))
        else:
            along = patches.gather(1, rows[:, None, None].expand(-1, 1, patches.shape[2]))[:, 0]
        total = along.mean(dim=1) if over == "mean" else along.sum(dim=1)
        return total.view(shape).mean(dim=1)

    said = f"units of {site}" if not wanted.is_floating_point() else f"directions in {site}"
    return Objective([site, IMAGES], read, said, targets=len(wanted), settings=f"{over} of {said} {wanted.tolist()}")


def _check_no_map_of_tokens(place: Site | None) -> None:
    """Refuse what stands between two tokens: it lies nowhere in an image, and its mean is the same for all of them."""
    if place is not None and place.form == "attention":
        raise ValueError(
            f"{place.name} has a number for every two tokens, and each of its rows adds up to 1: it has no units that "
            "lie in an image. Take recording.record for the map itself"
        )


def _chosen(seen: Tensor, units: Tensor, name: str) -> Tensor:
    """Of units before positions (n, u, …), some units or directions (n, k, …)."""
    if units.is_floating_point():
        return torch.einsum("nu...,ku->nk...", seen, check_directions(units, seen.shape[1], name).to(seen))
    return seen[:, check_units(units, seen.shape[1], name).to(seen.device)]
