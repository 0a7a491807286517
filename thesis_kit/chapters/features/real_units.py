"""Chapter 5's units of a real network: optima of EfficientNet-Lite0 at six depths, made once and kept with the package.

``python -m thesis_kit.chapters.features.real_units`` makes them again, in a minute or two of a core and with the extra
``real``. Of each of six blocks, one a stage, six channels are shown that lie evenly over the layer, none picked: the
wide ones that the block's first convolution makes, before their ReLU6. Behind it many are off at the start
and have no gradient. The same channels with random weights stand beside.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thesis_kit import __version__, features
from thesis_kit.evaluation.synthesized import high_frequency_share
from thesis_kit.files import parse_json, write_atomic
from thesis_kit.ledger.statistics import student_interval
from thesis_kit.ledger.thumbnails import pack_picture, unpack_picture
from thesis_kit.models import zoo
from thesis_kit.show.figures import Shown, card
from thesis_kit.show.pictures import pixels, rows_of_pictures, tile

KEPT = Path(__file__).with_name("results") / "units@lite0.json"
MEMBER = "efficientnet-lite0"
BLOCKS = {2: "1.1", 3: "2.1", 4: "3.2", 5: "4.2", 6: "5.3", 7: "6.0"}  # the last of each stage that has hidden maps
EFFORT = {"method": "fourier", "size": 96, "steps": 80, "copies": 1, "seed": 0}
EACH, CONTROLS = 6, 2


@dataclass(frozen=True)
class Layer:
    """Optima of some units of a stage, and of the first of them with random weights: images (k, 3, s, s), and the
    share of each one's energy in high frequencies."""

    stage: int
    width: int
    units: tuple[int, ...]
    images: Tensor
    fine: tuple[float, ...]
    untrained: Tensor
    untrained_fine: tuple[float, ...]


def site_of(block: str) -> str:
    """The wide maps of a block before their ReLU6."""
    return f"input of blocks.{block}.bn1.act"


def units_of(width: int, count: int = EACH) -> list[int]:
    """Evenly over a layer, from its first unit to its last."""
    return torch.linspace(0, width - 1, count).round().long().tolist()


def made(model: nn.Module, twin: nn.Module, block: str, **effort: Any) -> dict[str, Any]:
    """What is kept of a block."""
    site = site_of(block)
    width = features.maps(model, torch.full((1, 3, 32, 32), 0.5), site).shape[1]
    units = units_of(width)
    found: dict[str, Any] = {"site": site, "width": width, "units": units}
    for called, network, some in (("trained", model, units), ("untrained", twin, units[:: EACH // CONTROLS])):
        optima = features.visualize(network, site, some, **{**EFFORT, **effort})
        found[called] = {
            "pictures": [pack_picture(image) for image in optima.images],
            "fine": [round(share, 4) for share in high_frequency_share(optima.images).tolist()],
            "excited": [round(-loss, 3) for loss in optima.losses[-1].tolist()],
            "passes": optima.passes.forward_images,
        }
    return found


def make() -> None:
    """Make all of it again, and write the file that the chapter shows."""
    model = zoo.load(MEMBER)
    twin = features.random_twin(model, EFFORT["seed"])
    about = {"member": MEMBER, "weights": zoo.entry(MEMBER).sha256, "version": __version__, "effort": EFFORT}
    KEPT.parent.mkdir(exist_ok=True)
    stages: dict[str, Any] = {}
    for stage, block in BLOCKS.items():
        stages[str(stage)] = made(model, twin, block)
    write_atomic(KEPT, (json.dumps({**about, "stages": stages}, indent=1) + "\n").encode())


def kept() -> list[Layer]:
    """What was made, from the first stage to the last."""
    stages = parse_json(KEPT.read_bytes(), KEPT.name)["stages"]
    return [
        Layer(
            int(stage), found["width"], tuple(found["units"]), _unpacked(found["trained"]),
            tuple(found["trained"]["fine"]), _unpacked(found["untrained"]), tuple(found["untrained"]["fine"]),
        )
        for stage, found in stages.items()
    ]  # fmt: skip


def _unpacked(part: dict[str, Any]) -> Tensor:
    return torch.stack([unpack_picture(text) for text in part["pictures"]])


def optima_grid(layers: list[Layer], *, label: str, caption: str) -> Shown:
    """A row a stage: the optima of its units, and of some of them with random weights."""
    alike = range(1, EACH + 1, EACH // CONTROLS)
    columns = [*(f"trained {i}" for i in range(1, EACH + 1)), *(f"random {i}" for i in alike)]
    rows = {
        f"stage {one.stage}": [
            tile(pixels(image), f"stage {one.stage}, {called}: an optimum", quality=60)
            for image, called in zip([*one.images, *one.untrained], columns, strict=True)
        ]
        for one in layers
    }
    alt = "Optima of hidden channels, trained and with random weights, a row a stage."
    inner = rows_of_pictures(rows, columns, alt=alt, cell=96, fold=4)
    return Shown(card(inner, label=label, caption=caption), f"{label}. {caption}")


def fine_rows(layers: list[Layer]) -> list[tuple[str, ...]]:
    """Rows of a table: a stage, how many units, the mean share of high frequencies with its interval over units, and
    each one's with random weights, which are too few for an interval."""
    return [
        (
            f"stage {one.stage}", f"{len(one.fine)} of {one.width}", _share(one.fine),
            ", ".join(f"{share:.1%}" for share in one.untrained_fine),
        )
        for one in layers
    ]  # fmt: skip


def _share(values: tuple[float, ...]) -> str:
    low, high = student_interval(values)
    return f"{sum(values) / len(values):.0%} ({max(0.0, low):.0%} to {min(1.0, high):.0%}; n = {len(values)})"


if __name__ == "__main__":
    sys.exit(make())
