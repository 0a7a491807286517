"""Which network is it? A hash of everything that decides what it computes, as far as it can be told."""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import nn

_PLAIN = (bool, int, float, str, tuple, type(None))


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over a model's modules: their kinds, their plain attributes, and the bytes of parameters and buffers.

    Buffers count also where they are not stored with the weights, as a ``Classifier``'s mean and standard deviation.
    Training mode does not count. What a module keeps in other attributes or does in its code is not seen.
    """
    found = sha256()
    for name, module in model.named_modules(remove_duplicate=False):
        plain = {
            key: value
            for key, value in sorted(vars(module).items())
            if isinstance(value, _PLAIN) and not key.startswith("_") and key != "training"
        }
        found.update(f"{name} {type(module).__module__}.{type(module).__qualname__} {plain}\n".encode())
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
