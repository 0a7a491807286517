"""Does a pair read the order of words? A true caption against the same with its two objects exchanged.

"A red star left of a blue ring" and "a blue ring left of a red star" have the same words; who takes sentences for bags
of words is right about half of the time (Yuksekgonul et al. 2023). Scenes of two objects that stand in a relation have
both sentences, one true and one false.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from thesis_kit.asking import evaluating
from thesis_kit.data.scenes import Scenes, captions
from thesis_kit.data.scenes.pairs import directed, swapped
from thesis_kit.models.clip import Pair, as_pair

_BATCH = 250


def reads_order(
    clip: Pair, scenes: Scenes, *, kind: str = "full", images: Float[Tensor, "n c h w"] | None = None
) -> Bool[Tensor, " m"]:
    """For each directed pair among the scenes, whether its true caption lies nearer than the exchanged one.

    Args:
        clip: taken in evaluation mode and left as found. scenes: on the device of its image tower.
        kind: of captions.
        images: asked about in place of the scenes' own, one a scene. With those of other scenes it is a control: what
            captions alone give away.

    Returns:
        (m,) bool, m the number of directed pairs; a tie, as of a bag of words, counts as wrong.

    Raises:
        ValueError: no scene has two objects in a relation; not one image a scene.

    Examples:
        >>> clip = tk.models.build_clip("small_clip", seed=0)
        >>> scenes = tk.data.scenes.DISTRIBUTIONS["scenes.v1-pairs"].draw(4, 64, seed=0)
        >>> tk.language.reads_order(clip, scenes).dtype
        torch.bool
    """
    clip = as_pair(clip)
    rows, true, false = _sentences(scenes, kind)
    shown = scenes.images if images is None else images
    if len(shown) != len(scenes.images):
        raise ValueError(f"there must be an image a scene, {len(scenes.images)}, got {len(shown)}")
    with evaluating(clip), torch.no_grad():
        seen = torch.cat([clip.encode_image(x) for x in shown[rows].split(_BATCH)])
        near, far = ((seen * clip.encode_text(said)).sum(dim=1) for said in (true, false))
    return near > far


def exchange_similarity(clip: Pair, scenes: Scenes, *, kind: str = "full") -> Float[Tensor, " m"]:
    """For each directed pair among the scenes, the cosine between its true caption and the exchanged one; 1 is a text
    tower that takes sentences for bags of words. Arguments and errors as of ``reads_order``.

    Examples:
        >>> clip = tk.models.build_clip("small_clip", seed=0)
        >>> scenes = tk.data.scenes.DISTRIBUTIONS["scenes.v1-pairs"].draw(4, 64, seed=0)
        >>> bool((tk.language.exchange_similarity(clip, scenes) <= 1.001).all())
        True
    """
    clip = as_pair(clip)
    _, true, false = _sentences(scenes, kind)
    with evaluating(clip), torch.no_grad():
        return (clip.encode_text(true) * clip.encode_text(false)).sum(dim=1)


def _sentences(scenes: Scenes, kind: str) -> tuple[Tensor, list[str], list[str]]:
    """Which scenes are directed pairs, their captions, and the same exchanged."""
    rows = directed(scenes.table)
    if not rows.any():
        raise ValueError("none of the scenes has two objects in a relation: draw them from scenes.v1-pairs")
    table = scenes.table[rows]
    return rows, captions(table, kind), captions(swapped(table), kind)
