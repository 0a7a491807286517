"""Small pictures that a recording keeps of what it made, as text."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.extras import needs

_QUALITY = 70


def to_pil_image(image: Float[Tensor, "c h w"]) -> Any:
    """The image as Pillow's, by torchvision."""
    return needs("torchvision.transforms.functional", extra="show").to_pil_image(image)


def pack_picture(image: Float[Tensor, "c h w"]) -> str:
    """An image in [0, 1] as base64 text of a WebP file, good for the eye and some two thousand letters at 64 pixels."""
    buffer = BytesIO()
    to_pil_image(image.cpu()).save(buffer, "WEBP", method=6, quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def unpack_picture(text: str) -> Float[Tensor, "c h w"]:
    """The image in [0, 1], of three channels, behind ``pack_picture``'s text."""
    with needs("PIL.Image").open(BytesIO(base64.b64decode(text, validate=True))) as image:
        pixels = np.array(image.convert("RGB"), dtype=np.float32) / 255  # (h, w, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1)
