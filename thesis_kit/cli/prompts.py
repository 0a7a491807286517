"""The half of ``invert`` that draws prompts: an image–text pair by name, what it is told, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from thesis_kit.cli.drawn import record_of

_SCHEDULES = {"sketch": "small", "published": "2024"}
_A_PASS = 64  # images that the pair is asked about together, at the end


def check_words(clip: str | None, prompts: list[str] | None, of_classes: dict[str, Any]) -> bool:
    """Whether prompts are asked for; ``of_classes`` are options that only classes have, by name.

    Raises:
        ValueError: options of both, or half of either.
    """
    if clip is None and not prompts:
        return False
    if given := [name for name, value in of_classes.items() if value]:
        raise ValueError(f"{given[0]} is for classes: with --clip and --prompt, leave it out")
    if clip is None:
        raise ValueError("a prompt is told to a pair of networks for images and text: name one with --clip")
    if not prompts:
        raise ValueError('--clip draws what it is told: give --prompt "a red star"')
    return True


def named_pair(name: str, tag: str | None) -> Any:
    """An image–text pair of the zoo, or one of open_clip.

    Raises:
        ValueError: another kind of member, or a tag of one. UnknownName: there is no such pair or tag; near ones are
            offered, members of the zoo among them. WeightsUnavailable: open_clip's weights can not be had.
    """
    from thesis_kit.checks import choose
    from thesis_kit.extras import needs
    from thesis_kit.models import build_clip, zoo
    from thesis_kit.models.clip_build import SMALL

    if name in zoo.names():
        about = zoo.entry(name)
        if about.kind != "image-text pair":
            raise ValueError(f"{name} is no image–text pair but of the kind {about.kind!r}: name its classes instead")
        if tag is not None:
            raise ValueError(f"{name} has weights of its own: leave out --tag")
        return zoo.load(name)
    pairs = [one for one in zoo.names() if zoo.entry(one).kind == "image-text pair"]
    if ":" not in name:
        choose(name, [*pairs, SMALL, *needs("open_clip").list_models()], "image–text model")
    return build_clip(name, pretrained=tag, seed=None if tag else 0).eval()


def draw(
    clip: str, tag: str | None, prompts: list[str], *, each: int, size: int | None, quality: str, seed: int,
    resume: Any, precision: str, **own: Any,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """Pictures of prompts, and what is written beside them."""
    import torch

    from thesis_kit.checks import choose
    from thesis_kit.language import SCHEDULES, invert_prompts

    schedule = SCHEDULES[_SCHEDULES[choose(quality, list(_SCHEDULES), "quality of an inversion")]]
    pair = named_pair(clip, tag)
    pair = pair.to("cuda") if torch.cuda.is_available() else pair
    side = (pair.image.size or (224,))[0] if size is None else size
    steps = own.pop("steps")
    stages = schedule.stages if steps is None else tuple((share, steps) for share, _ in schedule.stages)
    schedule = replace(schedule, stages=stages, **{name: value for name, value in own.items() if value is not None})
    said = [prompt for prompt in prompts for _ in range(each)]
    found = invert_prompts(pair, said, size=side, schedule=schedule, seed=seed, precision=precision, checkpoint=resume)
    device = next(pair.image.parameters()).device
    with torch.no_grad():
        told = pair.encode_text(prompts)
        near = torch.cat([pair.encode_image(some.to(device)) @ told.T for some in found.images.split(_A_PASS)]).cpu()
    images = [
        {
            "prompt": prompt,
            "loss": found.losses[-1, i].item(),
            "cosine": near[i, i // each].item(),
            "nearest": prompts[int(near[i].argmax())],
        }
        for i, prompt in enumerate(said)
    ]
    plainly = {"stages": [list(stage) for stage in schedule.stages], "moving": asdict(schedule.moving)}
    settings = {**asdict(schedule), **plainly, "size": side, "quality": quality, "seed": seed, "precision": precision,
                "tag": tag}  # fmt: skip
    return found.images, record_of(clip, pair, settings, images, found)


def lines(record: dict[str, Any]) -> list[str]:
    """What is printed of each picture."""
    several = len({image["prompt"] for image in record["images"]}) > 1
    return [
        f"{image['prompt']:20} cosine {image['cosine']:.2f}" + f", nearest of the prompts: {image['nearest']}" * several
        for image in record["images"]
    ]
