"""The command line's ``invert``: what classes look like to a model, as a contact sheet and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer

from thesis_kit import __version__
from thesis_kit.cli.pages import out as console
from thesis_kit.cli.stopping import kept
from thesis_kit.cli.subjects import Arch, NamedModel, NClasses, Pretrained, Seed, Weights, named, real
from thesis_kit.files import only_writer, renewal, write_together

_A_PASS = 64  # images that the model is asked about together, at the end

Model = Annotated[
    str | None, typer.Option(help="A member of the zoo (`zoo list`), or any model name that timm knows.")
]
Classes = Annotated[str, typer.Option(help="Classes by number or, for a member of the zoo, by name: 0,3,heart.")]
Sheet = Annotated[Path, typer.Option(help="The contact sheet, as PNG; a JSON of the same name is written beside it.")]


def invert(
    classes: Classes, model: Model = None, sheet: Sheet = Path("inversion.png"),
    size: Annotated[int | None, typer.Option(help="Side of the images; the model's own if left out.")] = None,
    each: Annotated[int, typer.Option(min=1, help="Images of every class.")] = 1,
    quality: Annotated[str, typer.Option(help="sketch: a look, ours; published: the paper's, for a GPU.")] = "sketch",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in each of the seven stages.")] = None,
    copies: Annotated[int | None, typer.Option(min=1, help="Copies of an image in every step.")] = None,
    lr: Annotated[float | None, real("Learning rate of Adam.")] = None,
    color: Annotated[float, real("Range of ColorShift.")] = 1.0,
    tv: Annotated[float, real("Weight of total variation; the method has none.")] = 0.0,
    precision: Annotated[str, typer.Option(help="Of the passes: float32, bfloat16 or float16.")] = "float32",
    seed: Seed = 0, pretrained: Pretrained = False, weights: Weights = None, arch: Arch = None,
    n_classes: NClasses = None,
    resume: Annotated[Path | None, typer.Option(help="Keep the state here; the same command then goes on.")] = None,
) -> None:  # fmt: skip
    """Show what classes look like to a model, by Plug-In Inversion."""
    if sheet.suffix != ".png" or sheet.is_dir():
        raise ValueError(f"the contact sheet is a PNG: give --sheet a name that ends in .png, not {sheet}")
    beside = sheet.with_suffix(".json")
    if resume is not None and resume.absolute() in (sheet.absolute(), beside.absolute()):
        raise ValueError(f"{resume} is a file that the images go to: keep the state in another with --resume")
    with kept(_what_stays(resume, sheet)), only_writer(sheet, beside):  # which fails before the work, if at all
        import torch

        from thesis_kit import inversion
        from thesis_kit.checks import choose
        from thesis_kit.extras import needs

        drawing = needs("torchvision.utils", extra="show")
        chosen = named(model, pretrained, weights, arch, n_classes)
        names = chosen.member.class_names if chosen.member is not None else None
        channels, side = shape(chosen, size)
        network = chosen.load(channels)
        network = network.to("cuda") if torch.cuda.is_available() else network
        wanted = [number for word in classes.split(",") for number in [_class(word.strip(), names)] * each]
        knobs = {"size": side, "quality": quality, "color": color, "tv": tv, "seed": seed}
        settings_of = choose(quality, inversion.QUALITIES, "quality of an inversion")
        usual = {**settings_of, "lr": settings_of["optimizer"].lr}
        own = {"steps": steps, "copies": copies, "lr": lr}
        knobs |= {name: usual[name] if value is None else value for name, value in own.items()}
        found = inversion.plug_in_inversion(
            network, wanted, channels=channels, precision=precision, checkpoint=resume, **knobs
        )
        grid = drawing.make_grid(found.images, nrow=each * max(1, 8 // each))  # the images of a class in one row
        drawing.save_image(grid, picture := BytesIO(), format="png")
        settings = {**knobs, "classes": wanted, "precision": precision, "pretrained": pretrained}
        record = _record(chosen.name, network, names, wanted, found, settings)
        record["sheet"] = sha256(picture.getvalue()).hexdigest()
        write_together({sheet: picture.getvalue(), beside: (json.dumps(record, indent=1) + "\n").encode()})
        if names is None and not pretrained and weights is None:
            console.print(f"{chosen.name} has random weights, as a control has: --pretrained takes trained ones")
        _print(record, sheet)


def _record(
    name: str, network: Any, names: tuple[str, ...] | None, wanted: list[int], found: Any, settings: dict
) -> dict[str, Any]:
    """What is written beside the contact sheet."""
    import torch

    from thesis_kit.identity import fingerprint

    device = next(network.parameters()).device
    with torch.no_grad():
        sure = torch.cat([network(some.to(device)).softmax(dim=1).cpu() for some in found.images.split(_A_PASS)])
    images = [
        {
            "class": number,
            "name": names[number] if names else None,
            "loss": found.losses[-1, i].item(),
            "probability": sure[i, number].item(),
            "answer": int(sure[i].argmax()),
        }
        for i, number in enumerate(wanted)
    ]
    return {
        "model": name,
        "weights": fingerprint(network),
        "version": __version__,
        "settings": settings,
        "images": images,
        "passes": vars(found.passes),
        "seconds": found.seconds,
        "peak_bytes": found.peak_bytes,
    }


def _print(record: dict, sheet: Path) -> None:
    for image in record["images"]:
        called = image["name"] or f"class {image['class']}"
        console.print(f"{called:20} probability {image['probability']:.2f}, loss of copies {image['loss']:.3f}")
    spent = f"{record['seconds']:.0f} s, {record['passes']['forward_images']:,} images passed"
    console.print(f"{sheet} and {sheet.with_suffix('.json').name}, {spent}")


def _what_stays(resume: Path | None, sheet: Path) -> Callable[[], str]:
    """What Ctrl-C leaves, and how to go on."""
    drawn = renewal(sheet)

    def said() -> str:
        if drawn():
            return f"{sheet} is drawn"
        if resume is None:
            return "nothing was kept: with --resume FILE the state is, and the same command goes on from there"
        if not resume.exists():
            return "nothing was kept yet, and the same command begins anew"
        return f"the state is kept in {resume}, and the same command goes on from there"

    return said


def shape(model: NamedModel, size: int | None) -> tuple[int, int]:
    """Channels and side of a model's images."""
    from thesis_kit.inversion import LEAST
    from thesis_kit.models import zoo
    from thesis_kit.models.build import BUILDERS, timm_name

    if model.name in zoo.names():
        about = zoo.entry(model.name)
        channels, side, _ = about.image_shape
        least = 4 * about.recipe.get("least", 1)  # the first of the stages is a quarter of the last
        if size is not None and size < least > LEAST:
            raise ValueError(
                f"{model.name} takes images of {least // 4} pixels or more, and the drawing begins at a quarter of its "
                f"size: give --size {least} or more"
            )
        if size is None and side < LEAST:
            raise ValueError(
                f"{model.name} sees {side} × {side} pixels, too few to grow in eighths: give --size {LEAST} or more"
            )
        return channels, size or side
    if model.name in BUILDERS:
        if size is None:
            raise ValueError(f"{model.name} has no size of its own: give --size, the side of its images")
        return 3, size
    from thesis_kit.extras import needs

    name = timm_name(model.name, zoo.names())
    config = None if ":" in name else needs("timm").get_pretrained_cfg(name)
    return 3, size or (config.input_size[-1] if config else 224)


def _class(word: str, names: tuple[str, ...] | None) -> int:
    """A class's number, from its number or name."""
    from thesis_kit.checks import UnknownName, choose

    if word.isdecimal():
        return int(word)
    if names is None:
        raise UnknownName(f"{word!r} is not a number: only classes of a member of the zoo have names here")
    return list(names).index(choose(word, names, "class"))
