"""The command line's ``visualize``: what units of a model look at, as a contact sheet and JSON."""

from __future__ import annotations

import json
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thesis_kit import __version__
from thesis_kit.cli.inversion import Model, Sheet, shape
from thesis_kit.cli.numbered import numbers
from thesis_kit.cli.pages import out as console
from thesis_kit.cli.stopping import kept
from thesis_kit.cli.subjects import Arch, NamedModel, NClasses, Pretrained, Seed, Weights, named, real
from thesis_kit.files import only_writer, write_together

if TYPE_CHECKING:
    from torch import Tensor

    from thesis_kit.features import Triples

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_TALL = 128  # pixels of a tile of the sheet, at least

Layer = Annotated[str, typer.Option(help="A site, such as blocks.3.hidden, or a layer; --list shows them.")]
Folder = Annotated[Path | None, typer.Option(help="A folder of pictures to look for strong images in.")]
Controls = Annotated[
    int | None, typer.Option(min=0, help="Rows of random directions and of random weights; as many as units if left.")
]


def visualize(
    layer: Layer = "", units: Annotated[str, typer.Option(help="Numbers or ranges: 0,3,8-11.")] = "0-7",
    model: Model = None, sheet: Sheet = Path("units.png"),
    method: Annotated[str, typer.Option(help="paper, code, fourier or maco.")] = "paper",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps; as published if left out.")] = None,
    copies: Annotated[int | None, typer.Option(min=1, help="Copies of an image in every step.")] = None,
    tv: Annotated[
        float | None, real("Weight of total variation, of the methods paper and code; the code's unless given.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Side of the images; the model's own if left.")] = None,
    data: Annotated[str | None, typer.Option(help="Data whose test images are looked through; scenes.v1.")] = None,
    folder: Folder = None,
    images: Annotated[int, typer.Option(min=1, help="So many images at most.")] = 500,
    strongest: Annotated[int, typer.Option(min=1, help="Strong images of each unit.")] = 4,
    controls: Controls = None, seed: Seed = 0, pretrained: Pretrained = False, weights: Weights = None,
    arch: Arch = None, n_classes: NClasses = None,
    listed: Annotated[bool, typer.Option("--list", help="Show what can be named as --layer, and end.")] = False,
) -> None:  # fmt: skip
    """Show what units of a model look at: what excites them most, the strongest images, and where they fire."""
    if sheet.suffix != ".png" or sheet.is_dir():
        raise ValueError(f"the contact sheet is a PNG: give --sheet a name that ends in .png, not {sheet}")
    if folder is not None and data is not None:
        raise ValueError("--data and --folder are two answers to one question: give one of them")
    if folder is not None and not folder.is_dir():
        wrong = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"--folder {folder} {wrong}: give a folder of pictures")
    chosen = named(model, pretrained, weights, arch, n_classes)
    if listed:
        from thesis_kit import recording

        console.print(str(recording.sites(chosen.load(shape(chosen, size)[0]))), markup=False, highlight=False)
        return
    if not layer:
        raise ValueError("there is no layer: give --layer, such as blocks.3.hidden; --list shows what there is")
    chosen_units, beside = numbers(units), sheet.with_suffix(".json")
    with kept("nothing was kept: the same command begins anew"), only_writer(sheet, beside):
        knobs = {"method": method, "steps": steps, "copies": copies, "tv": tv, "size": size, "seed": seed}
        knobs |= {"strongest": strongest, "controls": controls}
        found, record = _made(chosen, layer, chosen_units, data or "scenes.v1", folder, images, knobs)
        picture = _sheet(found)
        record["sheet"] = sha256(picture).hexdigest()
        write_together({sheet: picture, beside: (json.dumps(record, indent=1) + "\n").encode()})
        if not pretrained and weights is None and chosen.member is None:
            console.print(f"{chosen.name} has random weights, as a control has: --pretrained takes trained ones")
        for row in record["rows"]:
            console.print(f"{row['name']:24} optimum {row['optimum']:.3g}, strongest image {row['value'][0]:.3g}")
        console.print(f"{sheet} and {beside.name}, {record['seconds']:.0f} s")


def _made(
    chosen: NamedModel, layer: str, units: list[int], data: str, folder: Path | None, images: int, knobs: dict[str, Any]
) -> tuple[Triples, dict[str, Any]]:
    """The triples, and what is written beside their sheet."""
    import torch

    from thesis_kit import features
    from thesis_kit.identity import fingerprint

    channels, side = shape(chosen, knobs["size"])
    network = chosen.load(channels)
    network = network.to("cuda") if torch.cuda.is_available() else network
    x, called = _from_folder(folder, images, side, channels) if folder else _from_data(data, images, side)
    network_device = next((p.device for p in network.parameters()), x.device)
    settings = {**knobs, "size": side}
    if channels != 3:
        settings["channels"] = channels
    found = features.triples(network, x.to(network_device), layer, units, **settings)
    rows = [_row(part, i, called) for part in found.rows for i in range(len(part))]
    return found, {
        "model": chosen.name, "pretrained": chosen.pretrained, "weights": fingerprint(network), "version": __version__,
        "site": layer, "units": units, "settings": settings, "images": str(folder.name if folder else data),
        "n": len(x), "rows": rows, "seconds": sum(part.seconds for part in found.rows),
        "passes": vars(sum((part.passes for part in found.rows[1:]), found.passes)),
    }  # fmt: skip


def _row(part: Triples, i: int, called: list[str] | None) -> dict[str, Any]:
    """A unit as JSON: what its optimum and strongest images give, which these are, and its maps of them."""
    index = part.index[i].tolist()
    return {
        "name": part.names[i],
        "optimum": part.optimum_value[i].item(),
        "value": part.value[i].tolist(),
        "index": index,
        "files": [called[k] for k in index] if called else None,
        "maps": [[[round(v, 5) for v in line] for line in one] for one in part.maps[i].tolist()],
    }


def _sheet(found: Triples) -> bytes:
    from thesis_kit.show.unit_pictures import triples_sheet

    triples_sheet(found, scale=max(1, _TALL // found.optima.shape[-1])).save(picture := BytesIO(), format="png")
    return picture.getvalue()


def _from_data(name: str, images: int, side: int) -> tuple[Tensor, None]:
    """Test images of a data set; scenes in the model's size."""
    from thesis_kit import data
    from thesis_kit.checks import choose

    choose(name, data.SETS, "data set")
    drawn = name in data.scenes.DISTRIBUTIONS
    options = {"size": side, "n_train": 1, "n_validation": 1, "n_test": images} if drawn else {}
    return data.load(name, **options).test.x[:images], None


def _from_folder(folder: Path, images: int, side: int, channels: int) -> tuple[Tensor, list[str]]:
    """Pictures of a folder in the order of their names, scaled and cropped to a square around their middle."""
    import torch

    from thesis_kit.extras import needs
    from thesis_kit.files.picture_files import read_picture

    to_tensor = needs("torchvision.transforms.functional", extra="show").to_tensor
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES and path.is_file())[:images]
    if not paths:
        raise ValueError(f"there is no picture in {folder}: give a folder with {', '.join(sorted(_PICTURES))} files")
    rows = []
    for path in paths:
        picture = read_picture(path, channels)
        square = min(picture.size)
        left, top = ((length - square) // 2 for length in picture.size)
        rows.append(to_tensor(picture.resize((side, side), box=(left, top, left + square, top + square))))
    return torch.stack(rows), [path.relative_to(folder).as_posix() for path in paths]
