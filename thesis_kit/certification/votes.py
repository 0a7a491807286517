"""A model's answers to noisy copies of images: the votes that certificates of randomized smoothing rest on.

Noise comes in blocks of 100 samples that belong to (seed, stream, image id, block), so an image meets the same noise
whatever its neighbors, the batch size or the number of processes, and fewer samples are a prefix of more. Which numbers
these are depends on the type of device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from thesis_kit.asking import ask
from thesis_kit.checks import check_count, check_images, check_logits, check_same_device
from thesis_kit.models.seen import check_has_classes
from thesis_kit.randomness import mix_seed

BLOCK = 100  # samples of noise that are drawn together
_BATCH = 2000  # noisy images in a pass
_CPU_BATCHES = 16, 4 * BLOCK  # the least and the most on a CPU: small passes cost calls, large ones fall out of caches
_CPU_NUMBERS = 100 * 3 * 32 * 32  # in a pass's images, between the two
_ALONE = 3  # images that a model is asked about apart from the others, once
_ROUNDING = 2e-3  # of a probability between two passes, in half precision too
SELECTION, ESTIMATION, PREDICTION = 0, 1, 2  # streams: what chooses a class must not also judge it


class NotDeterministic(ValueError):
    """In evaluation mode a model's answer to an image is not always the same, so that no certificate would hold."""


def _alike(first: Tensor, second: Tensor) -> bool:
    """Whether two passes gave the same probabilities, up to rounding."""
    return torch.allclose(first.softmax(dim=1), second.softmax(dim=1), rtol=0, atol=_ROUNDING)


def _batch_size(x: Tensor) -> int:
    """Noisy images in a pass, by device and size of the images."""
    if x.device.type != "cpu":
        return _BATCH
    least, most = _CPU_BATCHES
    return min(max(_CPU_NUMBERS // max(x.shape[1:].numel(), 1), least), most)


class Votes:
    """A model's answers to noisy copies of images."""

    def __init__(
        self, model: nn.Module, x: Tensor, sigma: float, seed: int, ids: Tensor | None, batch_size: int | None
    ):  # fmt: skip
        check_images(x)
        check_same_device(model, x), check_has_classes(model)
        batch_size = _batch_size(x) if batch_size is None else batch_size
        check_count(batch_size, what="batch_size")
        check_count(seed, what="seed", least=0)
        if ids is not None and (ids.shape != (len(x),) or ids.dtype != torch.int64):
            raise ValueError(f"ids must be int64 of shape ({len(x)},), got {ids.dtype} of shape {tuple(ids.shape)}")
        self.model, self.x, self.sigma, self.seed = model, x, sigma, seed
        self.ids = list(range(len(x))) if ids is None else ids.tolist()
        self.blocks = max(1, batch_size // BLOCK)  # that are drawn together
        self.batch_size = min(batch_size, self.blocks * BLOCK)
        self.generator = torch.Generator(x.device)
        self.n_classes = self._try_out() if len(x) else 0

    def _try_out(self) -> int:
        """Look whether the model answers as a classifier, the same twice, and to each image for itself."""
        noisy = self._noisy(0, SELECTION, range(1))
        with torch.no_grad():
            first, second, few = (ask(self.model, some) for some in (noisy, noisy, noisy[:_ALONE]))
        check_logits(first, BLOCK)
        if not _alike(first, second):
            raise NotDeterministic(
                "the model gave different answers to the same images in evaluation mode: switch off what is random in "
                "it, such as functional dropout without training=self.training"
            )
        if not _alike(first[:_ALONE], few):
            raise NotDeterministic(
                "the model's answer to an image depends on the images beside it: normalization over a batch needs "
                "running statistics"
            )
        return first.shape[1]

    def _noisy(self, i: int, stream: int, blocks: range) -> Tensor:
        """Image i with these blocks of noise, (BLOCK · blocks, c, h, w)."""
        noise = self.x.new_empty(len(blocks) * BLOCK, *self.x.shape[1:])
        for block, some in zip(blocks, noise.split(BLOCK), strict=True):
            some.normal_(generator=self.generator.manual_seed(mix_seed(self.seed, stream, self.ids[i], block)))
        return noise.mul_(self.sigma).add_(self.x[i])

    def _answers(self, i: int, stream: int, n: int) -> Iterator[Tensor]:
        """Classes of n noisy copies of image i, (b,) int64 at a time."""
        total = math.ceil(n / BLOCK)
        for first in range(0, total, self.blocks):
            blocks = range(first, min(first + self.blocks, total))
            noisy = self._noisy(i, stream, blocks)
            with torch.no_grad():
                answers = [ask(self.model, some) for some in noisy.split(self.batch_size)]
            logits = torch.cat(answers) if len(answers) > 1 else answers[0]
            check_logits(logits, len(noisy))
            yield logits.argmax(dim=1)[: n - first * BLOCK]

    def counts(self, i: int, stream: int, n: int) -> Tensor:
        """How often each class was answered, (k,) int64 on the CPU."""
        return sum(torch.bincount(some, minlength=self.n_classes) for some in self._answers(i, stream, n)).cpu()

    def agreements(self, i: int, label: int, n: int) -> Iterator[Tensor]:
        """Which of n copies for the bound were answered ``label``, (b,) bool at a time."""
        for some in self._answers(i, ESTIMATION, n):
            yield (some == label).cpu()
