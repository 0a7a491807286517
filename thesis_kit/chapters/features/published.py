"""Chapter 5's questions to a published ViT, on photographs: for the profile full, with a network connection."""

from __future__ import annotations

import torch

from thesis_kit import data
from thesis_kit.chapters.features import measures
from thesis_kit.data.photos import IMAGENETTE_IN_IMAGENET
from thesis_kit.models import build


def asked(name: str, n: int, *, device: torch.device | str = "cpu") -> dict[str, float]:
    """What rules ask of tokens, on n photographs of Imagenette, and of maps, on as many of pets with outlines.

    Args:
        name: of a ViT of timm's that names the classes of ImageNet, with a class token. n: how many of each.
        device: where it is asked.

    Returns:
        the numbers of ``measures.token_numbers``, chance-corrected over the thousand classes, and ``mask_numbers``.

    Raises:
        WeightsUnavailable: its weights cannot be had. DataUnavailable: photographs cannot.
    """
    model = build(name, pretrained=True).to(device).eval()
    size = (model.size or (224, 224))[-1]
    test = data.imagenette(size=size, n_test=n).test
    labels = torch.tensor(IMAGENETTE_IN_IMAGENET)[test.y].to(device)
    curves = measures.token_curves(model, test.x.to(device), labels)
    pets = data.oxford_pets(size=size, n=n).to(device)
    return measures.token_numbers(curves) | measures.mask_numbers(measures.mask_by_block(model, pets))
