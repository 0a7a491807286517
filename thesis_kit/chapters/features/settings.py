"""How large chapter 5 runs: the columns small, record and full."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from thesis_kit.chapters.tasks import Task

FIVE, FOUR, THREE = (1, 2, 3, 4, 5), (1, 2, 3, 4), (1, 2, 3)


def _scenes(name: str = "scenes.v1") -> Task:
    return Task(name, 16, MappingProxyType({"size": 64, "n_train": None, "n_validation": 1, "n_test": 1}))


@dataclass(frozen=True)
class Features:
    """Chapter 5. ``members`` are kinds of network under the names of the chapter's arms, each with as many
    independently trained ones as ``seeds`` says; those of seed 0 that chose the rules do not judge (none was trained
    on correlated backgrounds). ``encoder`` judges how alike images are.

    Units are scored on ``images`` scenes, by the ``strongest`` of each. Optima are made of ``units_each`` units a site
    by ``method``, in ``steps`` steps of ``copies`` copies; each is set against ``opponents`` strong and weak images.
    Tokens, masks and frequencies are asked about on ``images`` scenes too; pictures are low-passed at ``cutoffs``, in
    cycles along a side. ``published`` is a ViT of timm's that the notebook asks the same on photographs; none if empty.
    """

    task: Task = field(default_factory=_scenes)
    correlated: Task = field(default_factory=lambda: _scenes("scenes.v1-correlated"))
    members: MappingProxyType = field(
        default_factory=lambda: MappingProxyType(
            {
                "vit": "vit-scenes64",
                "vit-plain": "vit-scenes64-plain",
                "resnet-plain": "resnet-scenes64-plain",
                "convnext-plain": "convnext-scenes64-plain",
                "mixer-plain": "mixer-scenes64-plain",
                "vit-correlated": "vit-scenes64-correlated",
                "resnet-correlated": "resnet-scenes64-correlated",
            }
        )
    )
    seeds: MappingProxyType = field(
        default_factory=lambda: MappingProxyType(
            {
                "vit": FIVE,
                "vit-plain": THREE,
                "resnet-plain": FOUR,
                "convnext-plain": THREE,
                "mixer-plain": THREE,
                "vit-correlated": (0, 1, 2),
                "resnet-correlated": (0, 1, 2, 3),
            }
        )
    )
    encoder: str = "verifier-scenes64"
    images: int = 2000
    strongest: int = 20
    units_each: int = 24
    method: str = "fourier"
    steps: int = 64
    copies: int = 2
    opponents: int = 20
    cutoffs: tuple[float, ...] = (2, 3, 4, 5, 6, 8, 10)
    published: str = ""


FEATURES = MappingProxyType(
    {
        "small": Features(images=240, units_each=24, steps=32, copies=1),
        "record": Features(),
        "full": Features(published="vit_base_patch16_224.augreg_in21k_ft_in1k"),
    }
)
_FIVE = (0, 1, 2, 3, 4)  # all of them, for the rules were chosen on networks of scenes
_CLOTHES = Features(
    task=Task("fashion-mnist", 10),
    members=MappingProxyType({"vit": "vit-fashion", "vit-plain": "vit-fashion", "resnet-plain": "resnet-fashion"}),
    seeds=MappingProxyType({"vit": _FIVE, "vit-plain": _FIVE, "resnet-plain": _FIVE}),
    encoder="resnet-fashion",
)
CLOTHES = MappingProxyType({"record": _CLOTHES})
TABLES = MappingProxyType({"features": FEATURES})
