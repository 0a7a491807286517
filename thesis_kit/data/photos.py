"""Photographs through torchvision: CIFAR-10, CIFAR-100, Fashion-MNIST, Imagenette, and pets with their outlines.

The files are downloaded once into ``root`` and held in memory as pixels in [0, 1]; those of Fashion-MNIST are taken
from Debian's package ``dataset-fashion-mnist`` where it is installed, which needs no network. A tenth of the published
training part becomes the validation part; the published test part judges.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from thesis_kit.checks import check_count
from thesis_kit.connection import reachable
from thesis_kit.data.parts import Part, Splits
from thesis_kit.extras import needs
from thesis_kit.files import write_atomic

_VALIDATION_SHARE = 1 / 10
FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
FASHION_HASH = "1f243a60b4b748a44c48b9a6f6907be2a08bee3e4e226f0e86fbde8e147b745a"  # of training pixels and labels
IMAGENETTE_IN_IMAGENET = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)  # indices of its classes
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


class DataUnavailable(RuntimeError):
    """A data set is neither on disk nor to be downloaded."""


def default_root() -> Path:
    """Where downloads are kept: ``$TK_DATA``, or the folder ``thesis_kit`` in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TK_DATA", f"{cache}/thesis_kit")).expanduser()


def cifar10(seed: int = 0, *, root: str | Path | None = None, n_test: int | None = None) -> Splits:
    """Return CIFAR-10 (Krizhevsky 2009): 45,000 training, 5,000 validation, 10,000 test images of 3 × 32 × 32.

    Args:
        seed: cuts the validation part and, with ``n_test``, the test images used.
        root: folder of the download; ``default_root()`` unless given.
        n_test: use so many test images, drawn at random.

    Raises:
        DataUnavailable: the files are missing and cannot be downloaded; says how to go on without them.

    Examples:
        >>> test = tk.data.cifar10(n_test=100).test  # doctest: +SKIP
        >>> test.x.shape  # doctest: +SKIP
        torch.Size([100, 3, 32, 32])
    """
    return _cifar("CIFAR-10", "CIFAR10", seed, root, n_test)


def cifar100(seed: int = 0, *, root: str | Path | None = None, n_test: int | None = None) -> Splits:
    """Return CIFAR-100 (Krizhevsky 2009), a hundred classes, cut as ``cifar10`` is.

    Examples:
        >>> test = tk.data.cifar100(n_test=100).test  # doctest: +SKIP
        >>> test.x.shape  # doctest: +SKIP
        torch.Size([100, 3, 32, 32])
    """
    return _cifar("CIFAR-100", "CIFAR100", seed, root, n_test)


def _cifar(name: str, kind: str, seed: int, root: str | Path | None, n_test: int | None) -> Splits:
    folder, make = Path(root or default_root()), getattr(needs("torchvision.datasets"), kind)
    train, test = (
        _reach(name, folder, make.url, lambda download, train=train: make(folder, train, download=download))
        for train in (True, False)
    )
    parts = (_pixels(s.data.transpose(0, 3, 1, 2), s.targets) for s in (train, test))
    return _splits(*parts, seed=seed, n_test=n_test)


def fashion_mnist(seed: int = 0, *, root: str | Path | None = None, n_test: int | None = None) -> Splits:
    """Return Fashion-MNIST (Xiao et al. 2017): 54,000 training, 6,000 validation, 10,000 test images of 1 × 28 × 28.

    Photographs of ten kinds of clothes, gray on black. Debian's package ``dataset-fashion-mnist`` brings them; without
    it they are downloaded.

    Args:
        seed, root, n_test: as for ``cifar10``.

    Raises:
        DataUnavailable: the files are missing and cannot be downloaded; says how to go on without them.

    Examples:
        >>> test = tk.data.fashion_mnist(n_test=100).test  # doctest: +SKIP
        >>> test.x.shape  # doctest: +SKIP
        torch.Size([100, 1, 28, 28])
    """
    folder, make = Path(root or default_root()), needs("torchvision.datasets").FashionMNIST
    raw = folder / "FashionMNIST" / "raw"
    _unpack(_DEBIAN, raw)

    def open_split(train: bool):
        def found(download: bool):
            return make(folder, train, download=download)

        package = "install Debian's package dataset-fashion-mnist"
        return _reach("Fashion-MNIST", folder, make.mirrors[0], found, offline=package)

    train, test = open_split(True), open_split(False)
    if hashlib.sha256(train.data.numpy().tobytes() + train.targets.numpy().tobytes()).hexdigest() != FASHION_HASH:
        raise DataUnavailable(f"the files in {raw} are not the published ones: remove them, and they are fetched anew")
    parts = (_pixels(s.data.numpy()[:, None], s.targets.tolist()) for s in (train, test))
    return _splits(*parts, seed=seed, n_test=n_test)


def _unpack(package: Path, folder: Path) -> None:
    """What a package brings, unpacked to where torchvision looks, unless it lies there."""
    for file in sorted(package.glob("*-ubyte.gz")):
        if not (folder / file.stem).exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / file.stem, gzip.decompress(file.read_bytes()))


def imagenette(seed: int = 0, *, root: str | Path | None = None, size: int = 160, n_test: int | None = None) -> Splits:
    """Return Imagenette (Howard 2019), ten easy ImageNet classes, scaled and center-cropped to ``size`` pixels.

    Args:
        seed, root, n_test: as for ``cifar10``.
        size: side of the square images; the 160-pixel download serves up to 160, the 320-pixel one beyond.

    Raises:
        DataUnavailable: the files are missing and cannot be downloaded; says how to go on without them.

    Examples:
        >>> test = tk.data.imagenette(n_test=100).test  # doctest: +SKIP
        >>> test.x.shape  # doctest: +SKIP
        torch.Size([100, 3, 160, 160])
    """
    check_count(size, what="size", least=8)
    folder, variant = Path(root or default_root()), "160px" if size <= 160 else "320px"
    datasets, v2 = needs("torchvision.datasets"), needs("torchvision.transforms.v2")
    url, _ = datasets.Imagenette._ARCHIVES[variant]
    crop = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size), v2.PILToTensor()])

    def open_split(split: str) -> Part:
        def make(download: bool):
            return datasets.Imagenette(folder, split, size=variant, download=download, transform=crop)

        images, labels = zip(*_reach("Imagenette", folder, url, make), strict=True)
        return _pixels(torch.stack(images).numpy(), labels)

    return _splits(open_split("train"), open_split("val"), seed=seed, n_test=n_test)


@dataclass(frozen=True)
class Outlined:
    """Photographs with the outline of their object: ``images`` (n, 3, s, s) in [0, 1], ``labels`` (n,), and ``masks``
    (n, 1, s, s), 1 on the object, 0 on the background, ½ on the seam between them."""

    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    masks: Float[Tensor, "n 1 h w"]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Outlined:
        """The same on another device."""
        return Outlined(self.images.to(device), self.labels.to(device), self.masks.to(device))


def oxford_pets(seed: int = 0, *, root: str | Path | None = None, size: int = 224, n: int = 500) -> Outlined:
    """Return test photographs of the Oxford-IIIT Pet data set (Parkhi et al. 2012), 37 breeds of cats and dogs, with
    the outlines that people drew; scaled and center-cropped to ``size`` pixels.

    Args:
        seed: draws which of the 3,669 are used. root: as for ``cifar10``.
        size: side of the square images. n: how many.

    Raises:
        DataUnavailable: the files are missing and cannot be downloaded; says how to go on without them.

    Examples:
        >>> pets = tk.data.oxford_pets(n=10)  # doctest: +SKIP
        >>> pets.images.shape, pets.masks.shape  # doctest: +SKIP
        (torch.Size([10, 3, 224, 224]), torch.Size([10, 1, 224, 224]))
    """
    check_count(size, what="size", least=8)
    check_count(n, what="n")
    folder, v2 = Path(root or default_root()), needs("torchvision.transforms.v2")
    make, kinds = needs("torchvision.datasets").OxfordIIITPet, ("category", "segmentation")
    url, _ = make._RESOURCES[0]
    found = _reach("Oxford-IIIT Pet", folder, url, lambda download: make(folder, "test", kinds, download=download))
    crop = v2.Compose([v2.CenterCrop(size), v2.PILToTensor()])
    nearest = v2.InterpolationMode.NEAREST
    images, labels, masks = [], [], []
    for i in torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:n].tolist():
        photograph, (label, trimap) = found[i]
        images.append(crop(v2.Resize(size, antialias=True)(photograph.convert("RGB"))).float() / 255)
        masks.append(_SIDES[crop(v2.Resize(size, interpolation=nearest)(trimap)).long()])
        labels.append(label)
    return Outlined(torch.stack(images), torch.tensor(labels), torch.stack(masks))


_SIDES = torch.tensor([0.0, 1.0, 0.0, 0.5])  # of a trimap: 1 is the object, 2 the background, 3 the seam


def _reach(name: str, folder: Path, url: str, make: Callable, *, offline: str = ""):
    """The data set from disk, else from the network; ``offline`` says how else to come by it."""
    try:
        return make(download=False)
    except (RuntimeError, FileNotFoundError):
        pass
    try:
        if not reachable(url):
            raise ConnectionError(f"{urlsplit(url).hostname} does not answer")
        return make(download=True)
    except (OSError, RuntimeError) as error:
        raise DataUnavailable(
            f"{name} is not in {folder} and could not be downloaded ({error}): connect to the network once, "
            f"{f'{offline}, ' * bool(offline)}or stay "
            'offline with tk.setup("small"), whose data come with the package'
        ) from error


def _pixels(images: np.ndarray, labels: Sequence[int]) -> Part:
    x = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
    return Part(x, torch.as_tensor(labels, dtype=torch.int64), torch.arange(len(x)))


def _splits(train: Part, test: Part, *, seed: int, n_test: int | None) -> Splits:
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    n_validation = round(len(train) * _VALIDATION_SHARE)
    if n_test is not None:
        check_count(n_test, what="n_test")
        test = test[torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:n_test]]
    return Splits(train[order[n_validation:]], train[order[:n_validation]], test)
