"""The command line's ``invert``: what classes or prompts look like to a model, as a contact sheet and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer

from thesis_kit.cli import prompts
from thesis_kit.cli.drawn import record_of
from thesis_kit.cli.pages import out as console
from thesis_kit.cli.stopping import kept
from thesis_kit.cli.subjects import Arch, NamedModel, NClasses, Pretrained, Seed, Weights, named, real
from thesis_kit.files import only_writer, renewal, write_together

_A_PASS = 64  # images that the model is asked about together, at the end

Model = Annotated[
    str | None, typer.Option(help="A member of the zoo (`zoo list`), or any model name that timm knows.")
]
Classes = Annotated[str | None, typer.Option(help="Classes by number or, for a member of the zoo, by name: 0,3,heart.")]
Prompts = Annotated[
    list[str] | None,
    typer.Option("--prompt", help="A sentence that --clip is told: \"a red star\"; may be given several times."),
]
ClipName = Annotated[
    str | None,
    typer.Option("--clip", help="A pair of the zoo for images and text (`zoo list`), or a name that open_clip knows."),
]
Tag = Annotated[str | None, typer.Option(help="Of open_clip's weights, such as openai; random ones if left out.")]
Sheet = Annotated[Path, typer.Option(help="The contact sheet, as PNG; a JSON of the same name is written beside it.")]


def invert(
    classes: Classes = None, model: Model = None, clip: ClipName = None, prompt: Prompts = None, tag: Tag = None,
    sheet: Sheet = Path("inversion.png"),
    size: Annotated[int | None, typer.Option(min=1, help="Side of the images; the model's own if left.")] = None,
    each: Annotated[int, typer.Option(min=1, help="Images of every class or prompt.")] = 1,
    draws: Annotated[
        int, typer.Option(min=1, help="Of so many drawings of a class, keep the one that the model is surest of.")
    ] = 1,
    quality: Annotated[str, typer.Option(help="sketch: a look, ours; published: the paper's, for a GPU.")] = "sketch",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in each of the stages.")] = None,
    copies: Annotated[int | None, typer.Option(min=1, help="Copies of an image in every step.")] = None,
    lr: Annotated[float | None, real("Learning rate of Adam.")] = None,
    color: Annotated[float | None, real("Range of ColorShift, for classes; 1 if left out.")] = None,
    tv: Annotated[
        float | None, real("Weight of total variation; if left out 0 for classes and 0.005 for prompts.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the passes: float32, bfloat16 or float16.")] = "float32",
    seed: Seed = 0, pretrained: Pretrained = False, weights: Weights = None, arch: Arch = None,
    n_classes: NClasses = None,
    resume: Annotated[Path | None, typer.Option(help="Keep the state here; the same command then goes on.")] = None,
) -> None:  # fmt: skip
    """Show what classes look like to a model, by Plug-In Inversion, or what prompts do, to an image–text pair."""
    if sheet.suffix != ".png" or sheet.is_dir():
        raise ValueError(f"the contact sheet is a PNG: give --sheet a name that ends in .png, not {sheet}")
    beside = sheet.with_suffix(".json")
    if resume is not None and resume.absolute() in (sheet.absolute(), beside.absolute()):
        raise ValueError(f"{resume} is a file that the images go to: keep the state in another with --resume")
    of_classes = {"--classes": classes, "--model": model, "--weights": weights, "--arch": arch,
                  "--n-classes": n_classes, "--pretrained": pretrained, "--color": color is not None,
                  "--draws": draws > 1}  # fmt: skip
    of_prompts = prompts.check_words(clip, prompt, of_classes)
    if not of_prompts and (classes is None or tag is not None):
        raise ValueError(
            "--tag is for --clip, which draws prompts: leave it out" if tag is not None else
            'there is nothing to draw: name --classes of a --model, or give --clip and --prompt "a red star"'
        )  # fmt: skip
    with kept(_what_stays(resume, sheet)), only_writer(sheet, beside):  # which fails before the work, if at all
        from thesis_kit.extras import needs

        drawing = needs("torchvision.utils", extra="show")
        knobs = {"size": size, "each": each, "quality": quality, "steps": steps, "copies": copies, "lr": lr, "tv": tv,
                 "seed": seed, "precision": precision, "resume": resume}  # fmt: skip
        if of_prompts:
            images, record = prompts.draw(clip, tag, prompt, **knobs)
        else:
            chosen = named(model, pretrained, weights, arch, n_classes)
            images, record = _draw(chosen, classes, color=1.0 if color is None else color, draws=draws, **knobs)
        grid = drawing.make_grid(images, nrow=each * max(1, 8 // each))  # the images of a class in one row
        drawing.save_image(grid, picture := BytesIO(), format="png")
        record["sheet"] = sha256(picture.getvalue()).hexdigest()
        write_together({sheet: picture.getvalue(), beside: (json.dumps(record, indent=1) + "\n").encode()})
        if _is_random(record, weights, clip):
            how = "--pretrained takes" if not of_prompts else "the zoo has" if clip == "small_clip" else "--tag takes"
            console.print(f"{record['model']} has random weights, as a control has: {how} trained ones")
        for line in (prompts.lines if of_prompts else _lines)(record):
            console.print(line)
        spent = f"{record['seconds']:.0f} s, {record['passes']['forward_images']:,} images passed"
        console.print(f"{sheet} and {beside.name}, {spent}")


def _is_random(record: dict[str, Any], weights: Path | None, clip: str | None) -> bool:
    from thesis_kit.models import zoo

    settings = record["settings"]
    trained = settings["tag"] if clip is not None else settings["pretrained"] or weights
    return not trained and record["model"] not in zoo.names()


def _draw(
    chosen: NamedModel, classes: str, *, size: int | None, each: int, quality: str, tv: float | None, color: float,
    seed: int, precision: str, resume: Path | None, draws: int, **own: Any,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """Pictures of classes, and what is written beside them."""
    import torch

    from thesis_kit import inversion
    from thesis_kit.checks import choose

    names = chosen.member.class_names if chosen.member is not None else None
    channels, side = shape(chosen, size)
    network = chosen.load(channels)
    network = network.to("cuda") if torch.cuda.is_available() else network
    wanted = [number for word in classes.split(",") for number in [_class(word.strip(), names)] * each]
    knobs = {"size": side, "quality": quality, "color": color, "tv": 0.0 if tv is None else tv, "seed": seed}
    settings_of = choose(quality, inversion.QUALITIES, "quality of an inversion")
    usual = {**settings_of, "lr": settings_of["optimizer"].lr}
    knobs |= {name: usual[name] if value is None else value for name, value in own.items()}
    drawn = inversion.plug_in_inversion(
        network, wanted * draws, channels=channels, precision=precision, checkpoint=resume, **knobs
    )
    found = drawn if draws == 1 else inversion.surest(network, drawn, wanted)
    own = {"draws": draws, "precision": precision, "pretrained": chosen.pretrained}
    settings = {**knobs, "classes": wanted, **own}
    return found.images, _record(chosen.name, network, names, wanted, found, settings)


def _record(
    name: str, network: Any, names: tuple[str, ...] | None, wanted: list[int], found: Any, settings: dict
) -> dict[str, Any]:
    """What is written beside the contact sheet."""
    import torch

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
    return record_of(name, network, settings, images, found)


def _lines(record: dict[str, Any]) -> list[str]:
    """What is printed of each image."""
    return [
        f"{image['name'] or 'class ' + str(image['class']):20} probability {image['probability']:.2f}, "
        f"loss of copies {image['loss']:.3f}"
        for image in record["images"]
    ]


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
