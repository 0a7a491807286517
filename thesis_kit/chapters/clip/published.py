"""Chapter 6's questions to published networks, on photographs: for the profile full, with a network connection.

Of photographs no one knows all that is in them, so units are named by text alone, by one pair for all networks.
"""

from __future__ import annotations

import torch
from torch import nn

from thesis_kit import data, evaluation
from thesis_kit.chapters.clip.twin_measures import late_units
from thesis_kit.data.photos import IMAGENETTE_IN_IMAGENET
from thesis_kit.language import name_by_text, zero_shot
from thesis_kit.models import Clip, build, build_clip

CLASSES = (  # of Imagenette
    "a tench", "an English springer", "a cassette player", "a chain saw", "a church", "a French horn",
    "a garbage truck", "a gas pump", "a golf ball", "a parachute",
)  # fmt: skip
BESIDE = (  # what a photograph may be of beside its class: number, place, theme, color, view, kind of picture
    "one thing alone", "many things", "a crowd of people", "a person holding something", "two things side by side",
    "something far away", "a close-up", "a view from above", "a view from below", "before and after", "indoors",
    "outdoors", "water", "the sky", "grass", "a street", "a forest", "music", "work", "sport", "religion", "food",
    "death", "danger", "something red", "something blue", "something green", "something yellow", "something black",
    "something white", "something shiny", "stripes", "a text", "a drawing", "an old photograph", "a blurry photograph",
)  # fmt: skip
_TEMPLATES = ("a photo of {}", "a close-up photo of {}", "a blurry photo of {}")


def asked(
    name: str, tag: str, labeled: str, n: int, *, strongest: int = 20, device: torch.device | str = "cpu"
) -> dict[str, dict[str, float]]:
    """What units of a pair and of a network taught by labels are named, on n photographs of Imagenette.

    Args:
        name, tag: of open_clip's model and weights. labeled: of timm's network, taught the classes of ImageNet.
        n: how many photographs. strongest: that name a unit. device: where they are asked.

    Returns:
        what a network is called → ``right``, the share of photographs whose class it names; ``beside``, the share of
        hidden units of the last third of blocks whose name is no class; and ``beside_by_chance``, when activations are
        exchanged among photographs.

    Raises:
        WeightsUnavailable: weights cannot be had. DataUnavailable: photographs cannot.
    """
    clip, other = build_clip(name, pretrained=tag).to(device).eval(), build(labeled, pretrained=True).to(device).eval()
    size = max((network.size or (224, 224))[-1] for network in (clip.image, other))
    test = data.imagenette(size=size, n_test=n).test
    x, y = test.x.to(device), test.y.to(device)
    classes = torch.tensor(IMAGENETTE_IN_IMAGENET, device=x.device)
    found = {
        f"{name}, taught by captions": (clip.image, evaluation.correct(zero_shot(clip, CLASSES, _TEMPLATES), (x, y))),
        f"{labeled}, taught by labels": (other, evaluation.correct(other, (x, classes[y]))),
    }
    return {
        called: {"right": right.double().mean().item(), **_named(clip, tower, x, strongest)}
        for called, (tower, right) in found.items()
    }


def _named(clip: Clip, tower: nn.Module, x: torch.Tensor, strongest: int) -> dict[str, float]:
    a = late_units(tower, x)
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(0)).to(a.device)
    shares = {}
    for what, rows in (("beside", a), ("beside_by_chance", a[order])):
        names, _ = name_by_text(clip, rows, x, [*CLASSES, *BESIDE], k=strongest)
        shares[what] = (names >= len(CLASSES)).double().mean().item()
    return shares
