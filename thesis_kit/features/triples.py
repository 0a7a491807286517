"""Three views of a unit, as the paper names features by: its optimum, its strongest images, and where in them it fires.

Rows of random directions of the same site and of the same units of a network that learned nothing stand beside, unless
they are declined: what is seen there too is no finding about units.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.asking import Model, as_module
from thesis_kit.checks import check_count, check_images
from thesis_kit.features.controls import random_twin, rotation
from thesis_kit.features.units import Units, maps
from thesis_kit.features.visualization import own_size, visualize
from thesis_kit.passes import Passes
from thesis_kit.recording.streaming import given_units, only, top_examples


@dataclass(frozen=True)
class Triples:
    """k units by three views: ``optima`` (k, c, s, s); ``images`` (k, m, c, h, w), the strongest first, with their
    positions ``index`` (k, m), mean activations ``value`` (k, m) and ``maps`` (k, m, rows, columns) of the unit.

    ``optimum_value`` (k,) is the unit's mean over the patches of its optimum. ``names`` say what a row is. ``rotated``
    and ``untrained`` are the controls, where they were made. ``seconds`` and ``passes`` are what the optima cost.
    """

    site: str
    names: tuple[str, ...]
    optima: Tensor
    optimum_value: Tensor
    images: Tensor
    index: Tensor
    value: Tensor
    maps: Tensor
    seconds: float = 0.0
    passes: Passes = field(default_factory=Passes)
    rotated: Triples | None = None
    untrained: Triples | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def rows(self) -> list[Triples]:
        """The units, and the controls that there are."""
        return [part for part in (self, self.rotated, self.untrained) if part is not None]


def triples(
    model: Model,
    images: Float[Tensor, "n c h w"],
    site: str,
    units: Units,
    *,
    strongest: int = 4,
    controls: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **knobs: Any,
) -> Triples:
    """Each unit's optimum, its strongest images and its maps of them, with controls.

    Args:
        model: as for ``visualize``.
        images: real images in [0, 1], among which the strongest are looked for.
        site, units: as for ``visualize``.
        strongest: how many of them are shown.
        controls: rows of each control, as many as units unless given; 0 makes none. Where they are more than units, the
            network with random weights is asked about others of the layer too.
        batch_size: images a pass, for the strongest and for what optima give.
        seed: of optima, rotation and random weights.
        knobs: other arguments of ``visualize``, the same for units and controls.

    Raises:
        UnknownName, ValueError, TypeError: as ``visualize`` and ``recording.top_examples``; fewer images than
            ``strongest``; a site without patches.

    Examples:
        >>> vit = tk.zoo.load("vit-scenes64")
        >>> scenes = tk.data.load("scenes.v1-a", size=64, n_train=1, n_validation=1, n_test=4).test
        >>> effort = {"strongest": 2, "steps": 1, "copies": 1, "size": 64}
        >>> found = tk.features.triples(vit, scenes.x, "blocks.3.hidden", [0, 1], **effort)
        >>> found.images.shape
        torch.Size([2, 2, 3, 64, 64])
    """
    model = as_module(model)
    check_images(images)
    if controls is not None:
        check_count(controls, what="controls", least=0)
    site, given = only(site), given_units(units)
    width = maps(model, images[:1], site).shape[1]
    knobs = {"size": own_size(model) if knobs.get("size") is None else knobs["size"], **knobs, "seed": seed}
    if knobs.get("method") == "maco":
        knobs.setdefault("images", images)

    def views(network: Model, units: Tensor, called: str) -> Triples:
        return _views(network, images, site, units, called, strongest, batch_size, knobs)

    found = views(model, given, "direction" if given.is_floating_point() else "unit")
    count = len(given) if controls is None else controls
    if not count:
        return found
    count = min(count, width)
    rotated = rotation(width, count, seed=seed)
    directions = views(model, rotated, "random direction")
    untrained = views(random_twin(model, seed), _enough(given, count, width, rotated), "random weights, unit")
    return Triples(**{**vars(found), "rotated": directions, "untrained": untrained})


def _enough(given: Tensor, count: int, width: int, rotated: Tensor) -> Tensor:
    """So many of the units that were given; where these are too few, others of the layer or random directions too."""
    if given.is_floating_point():
        return torch.cat([given, rotated.to(given)[: max(0, count - len(given))]])[:count]
    others = [unit for unit in range(width) if unit not in set(given.tolist())]
    return torch.cat([given, torch.tensor(others, dtype=given.dtype)[: max(0, count - len(given))]])[:count]


def _views(
    model: Model, images: Tensor, site: str, units: Tensor, called: str, strongest: int, batch_size: int, knobs: dict
) -> Triples:
    top = top_examples(model, images, site, strongest, units=units, patterns=True, batch_size=batch_size)
    if top.pattern is None or top.pattern.ndim != 4:
        raise ValueError(f"{site} has no patches that form a grid, so that there are no maps: choose another site")
    made = visualize(model, site, units, **knobs)
    optima = made.images.to(images.device).split(batch_size)
    at = torch.cat([maps(model, some, site, units).flatten(2).mean(dim=2) for some in optima])  # (k, k)
    numbers = range(1, len(units) + 1) if units.is_floating_point() else units.tolist()
    return Triples(
        site, tuple(f"{called} {number}" for number in numbers), made.images, at.diagonal().cpu(), images[top.index],
        top.index.cpu(), top.value.cpu(), top.pattern.cpu(), made.seconds, made.passes,
    )  # fmt: skip
