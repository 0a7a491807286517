"""``visualize``: the contact sheet and the record beside it, pictures of one's own, and how it fails."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor
from torchvision.utils import save_image
from typer.testing import CliRunner

from thesis_kit import cli, data, features
from thesis_kit.files.picture_files import read_picture
from thesis_kit.models import zoo

runner = CliRunner()
MEMBER = "vit-scenes64-plain"
SITE = "blocks.1.hidden"
LEAST = ["--model", MEMBER, "--layer", SITE, "--units", "2,5-6", "--steps", 1, "--copies", 1, "--images", 6]


def call(*words):
    return runner.invoke(cli.app, [str(word) for word in ("visualize", *words)], catch_exceptions=False)


def test_units_are_on_the_sheet_and_what_they_are_is_beside_it(tmp_path):
    sheet = tmp_path / "units.png"
    done = call(*LEAST, "--strongest", 2, "--controls", 1, "--sheet", sheet, "--seed", 4)
    assert done.exit_code == 0
    x = data.load("scenes.v1", size=64, n_train=1, n_validation=1, n_test=6).test.x
    knobs = {"strongest": 2, "controls": 1, "steps": 1, "copies": 1, "seed": 4}
    found = features.triples(zoo.load(MEMBER), x, SITE, [2, 5, 6], **knobs)
    with Image.open(sheet) as image:
        shown = to_tensor(image)
    assert shown.shape == (3, 5 * 130 - 2, 5 * 130 - 2)  # three units and two controls, an optimum and 2 × 2 images
    large = found.optima[1].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.allclose(shown[:, 130:258, :128], large, atol=1 / 255)
    record = json.loads(sheet.with_suffix(".json").read_text(encoding="utf-8"))
    assert (record["site"], record["units"], record["n"]) == (SITE, [2, 5, 6], 6)
    assert [row["name"] for row in record["rows"]] == [name for part in found.rows for name in part.names]
    assert record["rows"][1]["index"] == found.index[1].tolist()
    assert record["rows"][1]["value"] == pytest.approx(found.value[1].tolist(), rel=1e-4)
    assert record["rows"][1]["optimum"] == pytest.approx(found.optimum_value[1].item(), rel=1e-3)
    assert torch.allclose(torch.tensor(record["rows"][0]["maps"]), found.maps[0], atol=1e-5)
    assert "unit 5" in done.output
    assert f"{sheet} and units.json" in done.output


def test_pictures_of_ones_own_are_named_by_their_files(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        save_image(torch.rand(3, 70, 90), pictures / f"{number}.png")
    sheet = tmp_path / "units.png"
    call(*LEAST, "--folder", pictures, "--strongest", 1, "--controls", 0, "--sheet", sheet)
    record = json.loads(sheet.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["n"] == 3
    assert all(row["files"] == [f"{row['index'][0]}.png"] for row in record["rows"])


def test_what_is_no_picture_is_left_or_named(tmp_path):
    pictures = tmp_path / "pictures"
    (pictures / "folder.png").mkdir(parents=True)
    for number in range(2):
        save_image(torch.rand(3, 70, 90), pictures / f"{number}.png")
    shown = call(*LEAST, "--folder", pictures, "--strongest", 1, "--controls", 0, "--sheet", tmp_path / "units.png")
    assert shown.exit_code == 0
    (pictures / "torn.png").write_bytes((pictures / "0.png").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"torn.png cannot be read as a picture: remove it, or mend it"):
        call(*LEAST, "--folder", pictures, "--strongest", 1, "--controls", 0, "--sheet", tmp_path / "units.png")


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_in_either_order(tmp_path, order):
    ramp = (257 * np.arange(256, dtype=np.uint16)).reshape(16, 16)
    Image.fromarray(ramp.astype(order)).save(tmp_path / "ramp.tiff")
    assert np.array_equal(np.asarray(read_picture(tmp_path / "ramp.tiff", 1)), ramp // 257)
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "long.tiff")
    with pytest.raises(ValueError, match=r"whose range it does not say \(mode I\)"):
        read_picture(tmp_path / "long.tiff")


def test_pictures_are_upright_and_keep_the_range_of_sixteen_bits(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "deep.png")
    for channels in (1, 3):
        x = to_tensor(read_picture(tmp_path / "deep.png", channels))
        assert x.shape == (channels, 64, 64)
        assert torch.allclose(x, torch.from_numpy(ramp / 65535).float(), atol=0.5 / 255 + 2 / 65535)
    left_half = Image.new("RGB", (40, 20))
    left_half.paste((255, 255, 255), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left side of what is stored is the top
    left_half.save(tmp_path / "turned.png", exif=exif)
    x = to_tensor(read_picture(tmp_path / "turned.png"))
    assert x.shape == (3, 40, 20)
    assert (x[:, :20] == 1).all()
    assert (x[:, 20:] == 0).all()
    for name, number, kind in (("real", 0.5, np.float32), ("long", 1 << 20, np.int32)):
        Image.fromarray(np.full((8, 8), number, dtype=kind)).save(tmp_path / f"{name}.tiff")
        with pytest.raises(ValueError, match=rf"{name}.tiff holds numbers whose range it does not say \(mode [FI]\)"):
            read_picture(tmp_path / f"{name}.tiff")


@pytest.mark.parametrize("size", [0, -5])
def test_a_size_is_at_least_one(size):
    refused = call(*LEAST, "--size", size)
    assert refused.exit_code == 2
    assert "Invalid value for '--size'" in refused.output


def test_folders_that_are_none_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for name, message in (("file", "file is a file: give a folder of pictures"), ("none", "none does not exist")):
        with pytest.raises(ValueError, match=message):
            call(*LEAST, "--folder", tmp_path / name, "--sheet", tmp_path / "units.png")
    with pytest.raises(OSError, match=r"file is a file, choose a folder you may write to; nothing was changed"):
        call(*LEAST, "--sheet", tmp_path / "file" / "units.png")


def test_what_can_be_named_is_listed():
    shown = call("--model", MEMBER, "--list")
    assert "blocks.{0…5}.hidden" in shown.output
    assert shown.exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*LEAST, "--sheet", "units.jpg"), "ends in .png"),
        ((*LEAST, "--units", "3-x"), "numbers or ranges"),
        ((*LEAST, "--units", "3,3"), "once each"),
        ((*LEAST, "--units", "0,3-1"), "the range 3-1 runs backwards: give it as 1-3"),
        ((*LEAST, "--tv", "-1"), "tv must be a finite number of at least 0"),
        ((*LEAST, "--units", "0-99999999999"), "0-99999999999 are 100,000,000,000 units, and no layer has as many"),
        ((*LEAST, "--layer", "blocks.1.hiden"), "did you mean blocks.1.hidden"),
        ((*LEAST, "--units", "400"), r"numbers in \[0, 383\]"),
        ((*LEAST, "--strongest", "9"), "hold 6 inputs and k is 9"),
        (("--model", MEMBER), "--list shows what there is"),
        ((*LEAST, "--data", "scenes.v1", "--folder", "."), "two answers"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        call(*words)
    assert list(tmp_path.iterdir()) == []
