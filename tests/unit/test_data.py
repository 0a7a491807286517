"""Digits are frozen and never leak between parts; data sets of others are read from their original formats."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import urllib.error
import urllib.request
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from thesis_kit import data
from thesis_kit.checks import UnknownName
from thesis_kit.data import Part, Splits, Stream, digits, photos
from thesis_kit.data.digits import NAME, data_hash, test_group
from thesis_kit.data.photos import DataUnavailable, default_root

test_group.__test__ = False  # a name of the package, not a test
SEEDS = range(10)


def ids(part: Part) -> set[int]:
    return set(part.ids.tolist())


# Digits


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_are_disjoint_and_cover_all_digits(seed):
    splits = digits(seed)
    train, validation, test = (ids(part) for part in (splits.train, splits.validation, splits.test))
    assert len(train) + len(validation) + len(test) == 1797
    assert train | validation | test == set(range(1797))
    assert len(splits.train) in (1256, 1257, 1258)
    assert len(splits.validation) == 180
    assert len(splits.test) in (359, 360)


def test_ten_runs_test_every_image_twice_and_name_equal_tests_alike():
    assert Counter(i for seed in SEEDS for i in digits(seed).test.ids.tolist()) == dict.fromkeys(range(1797), 2)
    for seed in SEEDS:
        assert test_group(seed) == f"digits.v1/fold{seed % 5}"
        assert torch.equal(digits(seed).test.ids, digits(seed % 5).test.ids)


def test_runs_that_share_a_test_part_differ_in_their_validation_part():
    assert ids(digits(0).validation) != ids(digits(5).validation)


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_are_stratified(seed):
    shares = torch.bincount(torch.from_numpy(load_digits().target)) / 1797
    splits = digits(seed)
    for part, tolerance in ((splits.train, 0.01), (splits.validation, 0.01), (splits.test, 0.01)):
        assert torch.allclose(torch.bincount(part.y) / len(part), shares.float(), atol=tolerance)


def test_images_are_the_originals_in_the_unit_range():
    original, part = load_digits(), digits(3).train
    assert (part.x.shape[1:], part.x.dtype, part.y.dtype) == ((1, 8, 8), torch.float32, torch.int64)
    assert (part.x.min(), part.x.max()) == (0, 1)
    index = part.ids.numpy()
    np.testing.assert_array_equal(part.x[:, 0].numpy() * 16, original.images[index])
    np.testing.assert_array_equal(part.y.numpy(), original.target[index])


def test_the_name_stands_for_these_bits_for_ever():
    """If this fails, results and weights would rest on other data under an old name: give the data a new name."""
    assert NAME == "digits.v1"
    assert data_hash() == "0ea90ef12a7672dc8cce741e70d9af0cd90f47eb045045b0a36729c825b633d4"
    cuts = hashlib.sha256()
    for seed in SEEDS:
        for part in (digits(seed).train, digits(seed).validation):
            cuts.update(part.ids.numpy().tobytes())
    assert cuts.hexdigest() == "31eca495554726092b432a60a4e931088e277270c7cac657230a2809d0b09bde"


def test_nobody_can_spoil_the_next_readers_images():
    digits(0).train.x.zero_()
    assert digits(0).train.x.max() == 1


# Parts


def test_parts_are_cut_and_moved_together():
    part = Part(torch.rand(5, 1, 2, 2), torch.arange(5), torch.arange(5) + 10)
    cut = part[torch.tensor([3, 1])]
    assert len(cut) == 2
    assert cut.y.tolist() == [3, 1]
    assert cut.ids.tolist() == [13, 11]
    assert torch.equal(cut.x, part.x[[3, 1]])
    assert len(part[1:4]) == 3
    moved = Splits(part, part, part).to("meta")
    assert {t.device.type for p in vars(moved).values() for t in vars(p).values()} == {"meta"}


class Counted(Stream):
    """Image i of minibatch p is all of the one gray level that tells the two numbers."""

    name = "counted"

    def minibatch(self, position, size):
        ids = position * size + torch.arange(size)
        return Part((ids / 1000).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), ids % 3, ids)


def test_a_stream_is_moved_with_its_splits_and_keeps_its_name():
    part = Counted().minibatch(0, 4)
    moved = Splits(Counted(), part, part).to("meta")
    assert moved.train.name == "counted"
    assert {t.device.type for t in vars(moved.train.minibatch(3, 2)).values()} == {"meta"}
    back = moved.train.to("cpu").minibatch(3, 2)
    assert back.ids.tolist() == [6, 7]
    assert torch.equal(back.x, Counted().minibatch(3, 2).x)


def test_a_stream_without_minibatches_cannot_be_made():
    with pytest.raises(TypeError, match="minibatch"):
        type("Empty", (Stream,), {"name": "empty"})()


def test_sets_are_found_by_name():
    assert torch.equal(data.load("digits", 2).test.ids, digits(2).test.ids)
    with pytest.raises(UnknownName, match="unknown data set 'cifar': did you mean cifar10"):
        data.load("cifar")


# Photographs, from small files in the original formats


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def cifar_files(tmp_path, monkeypatch):
    """Five training batches of four images and a test batch of six, pickled as Krizhevsky's are."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    numbers = np.random.default_rng(0)
    batches = {}
    for name, n in [*((f"data_batch_{i}", 4) for i in range(1, 6)), ("test_batch", 6)]:
        batches[name] = {
            "data": numbers.integers(0, 256, (n, 3072), dtype=np.uint8),
            "labels": numbers.integers(0, 10, n).tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(batches[name]))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    return tmp_path, batches


def test_cifar10_keeps_pixels_labels_and_parts(cifar_files, no_network):
    root, batches = cifar_files
    splits = data.cifar10(0, root=root)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [18, 2, 6]
    assert ids(splits.train) | ids(splits.validation) == set(range(20))
    expected = batches["test_batch"]["data"].reshape(6, 3, 32, 32)  # planes of red, green, blue
    np.testing.assert_array_equal((splits.test.x * 255).round().numpy(), expected)
    assert splits.test.y.tolist() == batches["test_batch"]["labels"]
    labels = [label for i in range(1, 6) for label in batches[f"data_batch_{i}"]["labels"]]
    assert splits.train.y.tolist() == [labels[i] for i in splits.train.ids]
    assert splits.train.x.dtype == torch.float32
    assert splits.train.y.dtype == torch.int64


def test_cifar100_takes_the_fine_labels(tmp_path, monkeypatch, no_network):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    numbers = np.random.default_rng(0)
    for name, n in (("train", 20), ("test", 5)):
        labels = {"fine_labels": list(range(80, 80 + n)), "coarse_labels": [0] * n}
        pixels = numbers.integers(0, 256, (n, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, **labels}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]}))
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    splits = data.load("cifar100", 0, root=tmp_path)
    assert splits.test.y.tolist() == [80, 81, 82, 83, 84]
    assert sorted(splits.train.y.tolist() + splits.validation.y.tolist()) == list(range(80, 100))


def test_the_seed_cuts_cifar10_and_n_test_draws_from_the_test_part(cifar_files, no_network):
    root, _ = cifar_files
    one, same, other = (data.cifar10(seed, root=root, n_test=4) for seed in (1, 1, 2))
    assert torch.equal(one.validation.ids, same.validation.ids)
    assert torch.equal(one.test.ids, same.test.ids)
    assert ids(one.validation) != ids(other.validation)
    assert ids(one.test) != ids(other.test)
    assert len(ids(one.test)) == 4


@pytest.fixture
def fashion_files(tmp_path, monkeypatch):
    """A folder as Debian's package makes it, of packed idx files with few images."""
    numbers, folder = np.random.default_rng(0), tmp_path / "package"
    folder.mkdir()
    for part, n in (("train", 20), ("t10k", 6)):
        pixels, labels = numbers.integers(0, 256, (n, 28, 28), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 10
        for kind, array in (("images", pixels), ("labels", labels)):
            header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            packed = gzip.compress(header + array.tobytes())
            (folder / f"{part}-{kind}-idx{array.ndim}-ubyte.gz").write_bytes(packed)
        if part == "train":
            published = hashlib.sha256(pixels.tobytes() + labels.astype(np.int64).tobytes()).hexdigest()
        else:
            judged = pixels
    monkeypatch.setattr(photos, "_DEBIAN", folder)
    monkeypatch.setattr(photos, "FASHION_HASH", published)
    return tmp_path / "cache", judged


def test_fashion_mnist_comes_from_debian_s_package(fashion_files, no_network):
    root, judged = fashion_files
    splits = data.load("fashion-mnist", 0, root=root)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [18, 2, 6]
    np.testing.assert_array_equal((splits.test.x * 255).round().numpy()[:, 0], judged)
    assert splits.test.y.tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(data.fashion_mnist(root=root).test.x, splits.test.x)  # unpacked once, read twice


def test_another_data_set_under_the_same_name_is_refused(fashion_files, no_network, monkeypatch):
    monkeypatch.setattr(photos, "FASHION_HASH", "0" * 64)
    with pytest.raises(DataUnavailable, match="are not the published ones: remove them"):
        data.fashion_mnist(root=fashion_files[0])


def test_without_the_package_fashion_mnist_names_it(tmp_path, no_network, monkeypatch):
    monkeypatch.setattr(photos, "_DEBIAN", tmp_path / "none")
    with pytest.raises(DataUnavailable, match="install Debian's package dataset-fashion-mnist, or stay offline"):
        data.fashion_mnist(root=tmp_path)


@pytest.fixture
def pet_files(tmp_path):
    """Four photographs of several shapes: the left half is the pet, with a seam in the middle."""
    for folder in ("images", "annotations/trimaps"):
        (tmp_path / "oxford-iiit-pet" / folder).mkdir(parents=True)
    lines = []
    for i in range(4):
        trimap = np.full((60, 80), 2, dtype=np.uint8)
        trimap[:, :38], trimap[:, 38:42] = 1, 3
        Image.fromarray(trimap).save(tmp_path / "oxford-iiit-pet" / "annotations" / "trimaps" / f"cat_{i}.png")
        pixels = np.where(trimap[..., None] == 1, 200, 40).repeat(3, axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "oxford-iiit-pet" / "images" / f"cat_{i}.jpg")
        lines.append(f"cat_{i} {i + 1} 1 1")
    (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("\n".join(lines))
    return tmp_path


def test_pets_come_with_their_outlines(pet_files, no_network):
    pets = data.oxford_pets(0, root=pet_files, size=30, n=3)
    assert (pets.images.shape, pets.masks.shape, len(pets)) == ((3, 3, 30, 30), (3, 1, 30, 30), 3)
    assert len(set(pets.labels.tolist())) == 3
    assert set(pets.labels.tolist()) < {0, 1, 2, 3}
    assert pets.masks.unique().tolist() == [0.0, 0.5, 1.0]
    assert ((pets.images[:, 0] > 0.5) == (pets.masks[:, 0] == 1)).double().mean() > 0.95
    assert torch.equal(data.oxford_pets(0, root=pet_files, size=30, n=3).labels, pets.labels)


@pytest.fixture
def imagenette_files(tmp_path):
    """Two classes, photographs of several shapes and modes, in folders by WordNet id."""
    for split, n in (("train", 10), ("val", 3)):
        for color, wnid in ((200, "n01440764"), (40, "n03888257")):
            folder = tmp_path / "imagenette2-160" / split / wnid
            folder.mkdir(parents=True)
            for i in range(n):
                shape, mode = ((160, 213), "RGB") if i % 2 else ((300, 160), "L")
                pixels = np.full((*shape, 3) if mode == "RGB" else shape, color, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.JPEG")
    return tmp_path


def test_imagenette_is_scaled_and_cropped_to_squares(imagenette_files, no_network):
    splits = data.imagenette(0, root=imagenette_files, size=32)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [18, 2, 6]
    assert splits.train.x.shape == (18, 3, 32, 32)
    assert sorted(splits.test.y.tolist()) == [0, 0, 0, 1, 1, 1]
    for label, color in ((0, 200), (1, 40)):
        images = splits.test.x[splits.test.y == label]
        assert torch.allclose(images, torch.full_like(images, color / 255), atol=2 / 255)


def test_without_files_and_network_the_sentence_says_how_to_go_on(tmp_path, no_network):
    for name, load in (("CIFAR-10", data.cifar10), ("CIFAR-100", data.cifar100), ("Imagenette", data.imagenette),
                       ("Oxford-IIIT Pet", data.oxford_pets)):  # fmt: skip
        with pytest.raises(DataUnavailable) as caught:
            load(root=tmp_path)
        sentence = str(caught.value)
        assert sentence.startswith(f"{name} is not in {tmp_path} and could not be downloaded (")
        assert 'stay offline with tk.setup("small"), whose data come with the package' in sentence
        assert "\n" not in sentence


def test_large_imagenette_asks_for_the_larger_download(tmp_path, monkeypatch):
    asked = []

    class Absent(torchvision.datasets.Imagenette):
        def __init__(self, root, split, size, **_):
            asked.append(size)
            raise RuntimeError("not there")

    monkeypatch.setattr(torchvision.datasets, "Imagenette", Absent)
    monkeypatch.setattr("thesis_kit.data.photos.reachable", lambda url: True)
    for size in (160, 161):
        with pytest.raises(DataUnavailable):
            data.imagenette(root=tmp_path, size=size)
    assert asked == ["160px", "160px", "320px", "320px"]


def test_downloads_live_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.delenv("TK_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "thesis_kit"
    monkeypatch.setenv("TK_DATA", str(tmp_path / "mine"))
    assert default_root() == tmp_path / "mine"
    monkeypatch.delenv("TK_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root().parts[-2:] == (".cache", "thesis_kit")
    assert default_root().is_absolute()


@pytest.mark.bad_input
def test_bad_numbers_are_one_sentence(cifar_files):
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0, got -1"):
        digits(-1)
    with pytest.raises(ValueError, match=r"seed must be a whole number of at least 0, got 1\.5"):
        digits(1.5)
    with pytest.raises(ValueError, match="n_test must be a whole number of at least 1, got 0"):
        data.cifar10(root=cifar_files[0], n_test=0)
    with pytest.raises(ValueError, match="size must be a whole number of at least 8, got 4"):
        data.imagenette(size=4)
    assert len(digits(np.int64(3)).test) == len(digits(3).test)
