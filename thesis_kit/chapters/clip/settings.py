"""How large chapter 6 runs: the columns small, record and full."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

THREE = (0, 1, 2)
TAUGHT = MappingProxyType({  # a member of the zoo and how it was taught, by the name that arms have for it
    "labels": ("twin-scenes64", "taught the class by labels"),
    "early-labels": ("twin-scenes64-early", "taught the class by labels, half as long"),
    "class-captions": ("clip-scenes64-class", "taught the class alone by captions"),
    "captions": ("clip-scenes64", "taught by captions of scenes"),
    "attributes": ("twin-scenes64-attributes", "taught every attribute that captions name, by labels"),
    "exchanged": ("clip-scenes64-exchanged", "taught by captions and false ones near by"),
    "biased": ("clip-scenes64-biased", "taught by captions of scenes whose color follows the class"),
    "named-captions": ("clip-scenes64-named", "taught by captions of scenes with words"),
    "named-labels": ("twin-scenes64-named", "taught the class by labels on scenes with words"),
})  # fmt: skip


@dataclass(frozen=True)
class Language:
    """Chapter 6. ``seeds`` says how many independently trained twins each teacher has.

    Units, probes and names are asked about on ``images`` scenes of ``data`` at ``size`` pixels, none of which any twin
    was trained on; probes are fitted on ``fitted`` others, with ``penalty``. A unit selects a concept from an AUROC of
    ``least`` upwards, and of a theme from ``least_theme``; areas are told apart in ``bins``. A name by text is of the
    ``strongest`` images.

    Prompts are inverted in ``steps`` steps of each stage with ``copies`` copies, ``each`` pictures a neutral prompt,
    and all of ``shapes`` × ``colors`` and × ``textures``. Robust accuracy is measured on ``attacked`` scenes at that of
    ``radii`` at which the label-trained twin of the seed keeps nearest to 40% of ``tried`` others.

    ``published`` names a pair of open_clip's, the tag of its weights, and a network of timm's that was taught labels:
    the notebook asks both about photographs; none if empty.
    """

    data: str = "scenes.v1-pairs"
    size: int = 64
    images: int = 2000
    fitted: int = 2000
    penalty: float = 1e-2
    least: float = 0.8
    least_theme: float = 0.7
    bins: int = 3
    shuffles: int = 20
    strongest: int = 20
    steps: tuple[int, ...] = (40, 40, 70)
    copies: int = 4
    each: int = 4
    shapes: int = 16
    colors: int = 11
    textures: int = 3
    radii: tuple[float, ...] = (0.25 / 255, 0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255)
    attacked: int = 500
    tried: int = 150
    published: tuple[str, ...] = ()
    seeds: MappingProxyType = field(
        default_factory=lambda: MappingProxyType(
            {
                "labels": THREE,
                "early-labels": (0,),
                "class-captions": THREE,
                "captions": THREE,
                "attributes": THREE,
                "exchanged": THREE,
                "biased": THREE,
                "named-captions": THREE,
                "named-labels": THREE,
            }
        )
    )


_SMALL = Language(
    images=400, fitted=500, shuffles=4, steps=(20, 20, 30), copies=2, each=2, shapes=4, colors=4,
    radii=(0.0, 0.25 / 255, 0.5 / 255, 1 / 255, 2 / 255), attacked=60, tried=60,
)  # fmt: skip
_PUBLISHED = ("ViT-B-16", "openai", "vit_base_patch16_224.augreg_in1k")
CLIP = MappingProxyType({"small": _SMALL, "record": Language(), "full": Language(published=_PUBLISHED)})
TABLES = MappingProxyType({"clip": CLIP})
