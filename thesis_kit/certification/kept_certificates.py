"""Certificates that are kept while they are made: a record an image, shared between processes.

The file knows the model's weights, the images and every setting that a certificate rests on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from thesis_kit.asking import Model
from thesis_kit.identity import must_tell, tensor_hash
from thesis_kit.progress import track
from thesis_kit.sweep import sweep

Numbers = list[list[int | float]]


def one_by_one(certify_one: Callable[[int], Numbers], n: int, progress: bool | None) -> list[Numbers]:
    """What ``certify_one`` gives for n images, kept nowhere."""
    with track("certifying", n, progress) as bar:
        rows = []
        for i in range(n):
            rows.append(certify_one(i))
            bar.advance()
    return rows


def kept(
    out: str | os.PathLike, model: Model, x: Tensor, ids: Tensor, settings: Mapping[str, Any],
    certify_one: Callable[[int], Numbers], progress: bool | None,
) -> list[Numbers] | None:  # fmt: skip
    """What ``certify_one`` gives for every image, made now or kept by an earlier call; None where others are at work.

    Args:
        model, x, ids, settings: what the certificates rest on.
        certify_one: from an image's position to label, radius, count and samples of each of its certificates.
    """
    told = {"model": must_tell(model), "images": tensor_hash(x), "ids": tensor_hash(ids), "device": x.device.type}

    def work(i: int) -> dict[str, Numbers]:
        return {"certificates": certify_one(i)}

    items = {str(i): i for i in range(len(x))}
    knobs = {"identity": "certify", "text": "certifying", "progress": progress}
    records = sweep(items, work, out, settings={**settings, **told}, **knobs)
    return None if records is None else [record["certificates"] for record in records]
