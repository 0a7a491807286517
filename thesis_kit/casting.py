"""Passes in another precision than the model's own: what a pass computes is cast layer by layer (autocast).

On a CPU, PyTorch's fused attention goes backward in bfloat16 slower than its parts do, so passes there are made of the
parts: a small ViT's update takes three quarters of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def autocast(precision: str, device: torch.device | str) -> Iterator[None]:
    """The context in which passes are made in ``precision``, a name of ``PRECISIONS``; none for the model's own."""
    dtype, kind = PRECISIONS[precision], torch.device(device).type
    if dtype is None:
        yield
        return
    in_parts = dtype == torch.bfloat16 and kind == "cpu"
    with torch.autocast(kind, dtype), sdpa_kernel(SDPBackend.MATH) if in_parts else nullcontext():
        yield
