"""Chapter 6's question to published networks, on photographs: for the profile full, with a network connection.

Of photographs no one knows all that is in them, so units are named by text alone, by one pair for all networks.
"""

from __future__ import annotations

import torch
from torch import nn

from thesis_kit import data
from thesis_kit.chapters.clip.twin_measures import late_units
from thesis_kit.data.scenes.captions import with_article
from thesis_kit.extras import needs
from thesis_kit.language import name_by_text
from thesis_kit.models import Clip, build, build_clip

NO_CLASS = (  # what a photograph may be of beside its class: number, place, theme, color, view, kind of picture
    "one thing alone", "many things", "a crowd of people", "a person holding something", "two things side by side",
    "something far away", "a close-up", "a view from above", "a view from below", "before and after", "indoors",
    "outdoors", "water", "the sky", "grass", "a street", "a forest", "music", "work", "sport", "religion", "food",
    "death", "danger", "something red", "something blue", "something green", "something yellow", "something black",
    "something white", "something shiny", "stripes", "a text", "a drawing", "an old photograph", "a blurry photograph",
)  # fmt: skip


def named_units(
    name: str, tag: str, labeled: str, n: int, *, strongest: int = 20, device: torch.device | str = "cpu"
) -> dict[str, tuple[float, float]]:
    """How many units of a pair and of a network taught by labels are named by no class of ImageNet.

    Args:
        name, tag: of open_clip's model and weights. labeled: of timm's network, taught the classes of ImageNet.
        n: photographs of Imagenette. strongest: of them, that name a unit. device: where networks are asked.

    Returns:
        what a network is called → the share of the hidden units of its last third of blocks whose name is one of
        ``NO_CLASS``, and the same when activations are exchanged among photographs. The last has random weights.

    Raises:
        WeightsUnavailable: weights cannot be had. DataUnavailable: photographs cannot.
    """
    clip = build_clip(name, pretrained=tag).to(device).eval()
    towers = {
        f"{name}, taught by captions": clip.image,
        f"{labeled}, taught by labels": build(labeled, pretrained=True).to(device).eval(),
        "the same with random weights": build(labeled, seed=0).to(device).eval(),
    }
    size = max((tower.size or (224, 224))[-1] for tower in towers.values())
    x = data.imagenette(size=size, n_test=n).test.x.to(device)
    known = needs("timm.data").ImageNetInfo().label_descriptions()  # "tench, Tinca tinca"
    classes = [with_article(label.partition(",")[0]) for label in known]
    return {called: _named(clip, tower, x, classes, strongest) for called, tower in towers.items()}


def _named(clip: Clip, tower: nn.Module, x: torch.Tensor, classes: list[str], k: int) -> tuple[float, float]:
    a = late_units(tower, x)
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(0)).to(a.device)
    names, _ = name_by_text(clip, torch.cat([a, a[order]], dim=1), x, [*classes, *NO_CLASS], k=k)
    own, by_chance = (names >= len(classes)).double().unflatten(0, (2, a.shape[1])).mean(dim=1).tolist()
    return own, by_chance
