"""The sentences at the door: what is let in, and what is said otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thesis_kit.checks import (
    NonFiniteOutput,
    UnknownName,
    check_count,
    check_eps,
    check_images,
    check_labels,
    check_logits,
    check_same_device,
    choose,
)

pytestmark = pytest.mark.bad_input


def test_choose_takes_mappings_and_lists():
    assert choose("a", {"a": 1, "b": 2}, "letter") == 1
    assert choose("b", ["a", "b"], "letter") == "b"
    assert choose("b", (letter for letter in "abc"), "letter") == "b"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fre-8", "unknown arm 'fre-8': did you mean free-8"),
        ("natura", "unknown arm 'natura': did you mean natural"),
        ("zzzz", "unknown arm 'zzzz': choose one of free-8, natural, pgd-7"),
        (None, "unknown arm None"),
        (3, "unknown arm 3"),
    ],
)
def test_choose_offers_near_names(name, sentence):
    with pytest.raises(UnknownName, match=sentence):
        choose(name, ["natural", "free-8", "pgd-7"], "arm")
    with pytest.raises(ValueError, match=sentence):
        choose(name, dict.fromkeys(["natural", "free-8", "pgd-7"]), "arm")


def test_choose_shows_a_few_of_very_many():
    many = [f"layer{n}" for n in range(1234)]
    with pytest.raises(UnknownName, match=r"choose one of layer0, .*layer7 and 1,226 more: see model.named_modules"):
        choose("§", many, "layer")
    with pytest.raises(UnknownName, match=r"choose one of layer0, layer1, layer2$"):
        choose("§", many[:3], "layer")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_images_let_in(dtype):
    check_images(torch.tensor([0.0, 0.5, 1.0, -0.0], dtype=dtype).view(1, 1, 2, 2))
    check_images(torch.empty(0, 3, 4, 4, dtype=dtype))
    check_images(torch.empty(2, 3, 0, 4, dtype=dtype))


@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        (torch.tensor([-2.12, 2.64]).view(2, 1, 1, 1), ValueError, r"\[0, 1\], got \[-2.12, 2.64\]: put the normaliz"),
        (torch.tensor([0, 1 + 1e-6]).view(2, 1, 1, 1), ValueError, r"pixels must lie in \[0, 1\]"),
        (torch.full((1, 1, 2, 2), torch.inf), ValueError, r"pixels must lie in \[0, 1\], got \[inf, inf\]"),
        (torch.tensor([0.5, torch.nan]).view(2, 1, 1, 1), ValueError, "contain NaN: look at how they were loaded"),
        (torch.zeros(2, 3, 4), ValueError, r"shape \(n, c, h, w\), got \(2, 3, 4\): add the missing dimensions"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), TypeError, "got torch.uint8: convert with x.float"),
        ([[0.5]], TypeError, "must be a floating-point tensor, got list"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_images_refused(x, error, sentence):
    with pytest.raises(error, match=sentence):
        check_images(x)


def test_labels_let_in():
    check_labels(torch.tensor([0, 4]), 2, 5)
    check_labels(torch.tensor([0, 400]), 2)
    check_labels(torch.empty(0, dtype=torch.int64), 0, 5)


@pytest.mark.parametrize(
    ("y", "error", "sentence"),
    [
        (torch.tensor([0, 5]), ValueError, r"labels must lie in \[0, 4\], for the model has 5 outputs; got 0 to 5"),
        (torch.tensor([-1, 0]), ValueError, "got -1 to 0"),
        (torch.tensor([0]), ValueError, r"shape \(2,\), one class index an image, got \(1,\)"),
        (torch.zeros(2, 5, dtype=torch.int64), ValueError, r"got \(2, 5\)"),
        (torch.tensor([0, 1], dtype=torch.int32), TypeError, "int64 tensor, got torch.int32: convert with y.long"),
        (torch.tensor([0.0, 1.0]), TypeError, "int64 tensor, got torch.float32"),
        ([0, 1], TypeError, "int64 tensor, got list"),
    ],
)
def test_labels_refused(y, error, sentence):
    with pytest.raises(error, match=sentence):
        check_labels(y, 2, 5)
    with pytest.raises(error, match=r"^targets must"):
        check_labels(y, 2, 5, what="targets")


@pytest.mark.parametrize(
    ("logits", "error", "sentence"),
    [
        (torch.tensor([[0.0, torch.nan]]), NonFiniteOutput, "NaN or infinite logits: check its weights"),
        (torch.tensor([[0.0, torch.inf]]), NonFiniteOutput, "NaN or infinite logits"),
        (torch.zeros(1, 1), ValueError, "one output: a classifier needs at least two classes"),
        (torch.zeros(1), ValueError, r"shape \(1, k\) for 1 images, got \(1,\)"),
        (torch.zeros(2, 3), ValueError, r"got \(2, 3\)"),
        (torch.zeros(1, 3, 4), ValueError, r"got \(1, 3, 4\)"),
        ((torch.zeros(1, 3),), ValueError, "got tuple"),
    ],
)
def test_logits_refused(logits, error, sentence):
    with pytest.raises(error, match=sentence):
        check_logits(logits, 1)
    check_logits(torch.zeros(1, 2), 1)


@pytest.mark.parametrize("eps", [-1e-9, float("nan"), float("inf"), "0.1", None, torch.tensor(0.1)])
def test_radius_refused(eps):
    with pytest.raises(ValueError, match="radius must be a finite number of at least 0, got"):
        check_eps(eps, what="radius")


@pytest.mark.parametrize("eps", [0, 0.0, 8 / 255, 1, 10.5])
def test_radius_let_in(eps):
    check_eps(eps)


@pytest.mark.parametrize("count", [0, -1, 1.0, "3", True, None])
def test_count_refused(count):
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got"):
        check_count(count, what="steps")


def test_count_let_in():
    check_count(1, what="steps")
    check_count(0, what="steps", least=0)


def test_devices():
    x = torch.zeros(1, 1, 2, 2)
    check_same_device(nn.Flatten(), x)  # nothing to be elsewhere
    check_same_device(nn.Conv2d(1, 1, 1), x)
    with pytest.raises(ValueError, match=r"model is on meta and the images are on cpu: move one with .to\(device\)"):
        check_same_device(nn.Conv2d(1, 1, 1, device="meta"), x)
