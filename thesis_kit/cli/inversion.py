"""The command line's ``invert``: what classes look like to a model, as a contact sheet and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from torchvision.utils import make_grid, save_image

from thesis_kit import __version__
from thesis_kit.checks import UnknownName, choose
from thesis_kit.cli.pages import out as console
from thesis_kit.cli.subjects import Pretrained, Seed, model_of
from thesis_kit.files import write_atomic
from thesis_kit.inversion import LEAST, plug_in_inversion
from thesis_kit.models import zoo
from thesis_kit.models.build import timm_name
from thesis_kit.models.fingerprint import fingerprint

_A_PASS = 64  # images that the model is asked about together, at the end

Model = Annotated[str, typer.Option(help="A member of the zoo (`zoo list`), or any model name that timm knows.")]
Classes = Annotated[str, typer.Option(help="Classes by number or, for a member of the zoo, by name: 0,3,heart.")]
Sheet = Annotated[Path, typer.Option(help="The contact sheet, as PNG; a JSON of the same name is written beside it.")]


def invert(
    model: Model, classes: Classes, sheet: Sheet = Path("inversion.png"),
    size: Annotated[int | None, typer.Option(help="Side of the images; the model's own if left out.")] = None,
    each: Annotated[int, typer.Option(min=1, help="Images of every class.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps in each of the seven stages.")] = 400,
    copies: Annotated[int, typer.Option(min=1, help="Copies of an image in every step.")] = 16,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 0.01,
    color: Annotated[float, typer.Option(help="Range of ColorShift.")] = 1.0,
    tv: Annotated[float, typer.Option(help="Weight of total variation; the method has none.")] = 0.0,
    precision: Annotated[str, typer.Option(help="Of the passes: float32, bfloat16 or float16.")] = "float32",
    seed: Seed = 0, pretrained: Pretrained = False,
    resume: Annotated[Path | None, typer.Option(help="Keep the state here; the same command then goes on.")] = None,
) -> None:  # fmt: skip
    """Show what classes look like to a model, by Plug-In Inversion."""
    if sheet.suffix != ".png" or sheet.is_dir():
        raise ValueError(f"the contact sheet is a PNG: give --sheet a name that ends in .png, not {sheet}")
    sheet.parent.mkdir(parents=True, exist_ok=True)
    names = zoo.entry(model).class_names if model in zoo.names() else None
    channels, side = _shape(model, size)
    network = model_of(model, pretrained, channels).eval()
    network = network.to("cuda") if torch.cuda.is_available() else network
    if names is None and not pretrained:
        console.print(f"{model} has random weights, as a control has: --pretrained takes trained ones", markup=False)
    wanted = [number for word in classes.split(",") for number in [_class(word.strip(), names)] * each]
    knobs = {"size": side, "steps": steps, "copies": copies, "lr": lr, "color": color, "tv": tv, "seed": seed}
    found = plug_in_inversion(network, wanted, channels=channels, precision=precision, checkpoint=resume, **knobs)
    save_image(make_grid(found.images, nrow=each * max(1, 8 // each)), sheet)  # the images of a class in one row
    device = next(network.parameters()).device
    with torch.no_grad():
        sure = torch.cat([network(some.to(device)).softmax(dim=1).cpu() for some in found.images.split(_A_PASS)])
    record = {
        "model": model,
        "weights": fingerprint(network),
        "version": __version__,
        "settings": {**knobs, "classes": wanted, "precision": precision, "pretrained": pretrained},
        "images": [
            {
                "class": number,
                "name": names[number] if names else None,
                "loss": found.losses[-1, i].item(),
                "probability": sure[i, number].item(),
                "answer": int(sure[i].argmax()),
            }
            for i, number in enumerate(wanted)
        ],
        "passes": vars(found.passes),
        "seconds": found.seconds,
        "peak_bytes": found.peak_bytes,
    }
    beside = sheet.with_suffix(".json")
    write_atomic(beside, (json.dumps(record, indent=1) + "\n").encode())
    for image in record["images"]:
        called = image["name"] or f"class {image['class']}"
        said = f"{called:20} probability {image['probability']:.2f}, loss of copies {image['loss']:.3f}"
        console.print(said, markup=False)
    spent = f"{found.seconds:.0f} s, {found.passes.forward_images:,} images passed"
    console.print(f"{sheet} and {beside.name}, {spent}", markup=False)


def _shape(model: str, size: int | None) -> tuple[int, int]:
    """Channels and side of a model's images."""
    if model in zoo.names():
        channels, side, _ = zoo.entry(model).image_shape
        if size is None and side < LEAST:
            raise ValueError(
                f"{model} sees {side} × {side} pixels, too few to grow in eighths: give --size {LEAST} or more"
            )
        return channels, size or side
    import timm  # half a second, and only needed here

    config = timm.get_pretrained_cfg(timm_name(model, zoo.names()))
    return 3, size or (config.input_size[-1] if config else 224)


def _class(word: str, names: tuple[str, ...] | None) -> int:
    """A class's number, from its number or name."""
    if word.isdecimal():
        return int(word)
    if names is None:
        raise UnknownName(f"{word!r} is not a number: only classes of a member of the zoo have names here")
    return list(names).index(choose(word, names, "class"))
