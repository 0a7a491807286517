"""Real handwritten digits, 8 × 8 pixels, that come with scikit-learn: the book's offline data set.

1,797 digits by 43 writers (Alpaydin and Kaynak 1998). They are cut once into five stratified folds under the frozen
name ``digits.v1``; run j tests on fold j mod 5, so ten runs test every image twice. One part in eight of what is left
serves to choose hyper-parameters, and run j's training never sees either.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import torch

from thesis_kit.checks import check_count
from thesis_kit.data.parts import Part, Splits
from thesis_kit.extras import needs

NAME = "digits.v1"
N_FOLDS = 5
_FOLDS_SEED = 0
_VALIDATION_SHARE = 1 / 8


@lru_cache(maxsize=1)
def _images() -> tuple[np.ndarray, np.ndarray]:
    bunch = needs("sklearn.datasets").load_digits()
    pixels = (bunch.data.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)  # 17 gray levels, 0 … 16
    return pixels, bunch.target.astype(np.int64)


@lru_cache(maxsize=1)
def _folds() -> tuple[np.ndarray, ...]:
    x, y = _images()
    cut = needs("sklearn.model_selection").StratifiedKFold(N_FOLDS, shuffle=True, random_state=_FOLDS_SEED)
    return tuple(np.sort(test) for _, test in cut.split(x, y))


def digits(seed: int = 0) -> Splits:
    """Return run ``seed``'s training, validation and test digits.

    Args:
        seed: number of the run, at least 0; its test part is fold ``seed`` mod 5.

    Returns:
        Splits with 1,257 (±1) training, 180 validation and 360 (±1) test images, (n, 1, 8, 8) float32 in [0, 1].
        The three parts are disjoint; test parts of runs 0 … 4 are disjoint and cover all 1,797 images.

    Examples:
        >>> test = tk.data.digits(seed=0).test
        >>> test.x.shape, test.y[:3].tolist()
        (torch.Size([360, 1, 8, 8]), [1, 3, 7])
    """
    check_count(seed, what="seed", least=0)
    x, y = _images()
    test = _folds()[seed % N_FOLDS]
    rest = np.setdiff1d(np.arange(len(y)), test)
    cut = needs("sklearn.model_selection").train_test_split
    train, validation = cut(rest, test_size=_VALIDATION_SHARE, stratify=y[rest], random_state=seed)
    return Splits(*(_part(x, y, np.sort(ids)) for ids in (train, validation, test)))


def _part(x: np.ndarray, y: np.ndarray, ids: np.ndarray) -> Part:
    return Part(torch.from_numpy(x[ids]), torch.from_numpy(y[ids]), torch.from_numpy(ids))


def test_group(seed: int) -> str:
    """The name of run ``seed``'s set of test images: runs with the same group test the same images."""
    return f"{NAME}/fold{seed % N_FOLDS}"


def data_hash() -> str:
    """SHA-256 of all pixels, labels and folds: what a result rests on."""
    digest = hashlib.sha256()
    for array in (*_images(), *_folds()):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
