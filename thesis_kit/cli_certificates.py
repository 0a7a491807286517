"""The command line's ``certify`` and ``attack shadow``: a model by name, a data set by name, one JSON line an image."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from thesis_kit import data
from thesis_kit.attacks.shadow import PUBLISHED, spoof
from thesis_kit.certification import ABSTAIN, Budget
from thesis_kit.certification import certify as certify_images
from thesis_kit.checks import UnknownName, check_count, choose
from thesis_kit.data import Part
from thesis_kit.experiments.zoo import SOURCES
from thesis_kit.models import build, zoo
from thesis_kit.sweep import sweep

out = Console(highlight=False, soft_wrap=True)

Model = Annotated[str, typer.Argument(help="A member of the zoo (`zoo list`), or any model name that timm knows.")]
Data = Annotated[str, typer.Option(help="Data set whose test images are taken, such as scenes.v1-a or cifar10.")]
Sigma = Annotated[float, typer.Option(help="Standard deviation of the smoothing noise; pixels lie in [0, 1].")]
Images = Annotated[int, typer.Option(min=1, help="So many test images.")]
Size = Annotated[int, typer.Option(help="Pixels along a side, for scenes.")]
N0 = Annotated[int, typer.Option(help="Samples that choose the class.")]
N = Annotated[int, typer.Option(help="Samples that bound its probability.")]
Alpha = Annotated[float, typer.Option(help="Chance that a certificate is wrong.")]
Seed = Annotated[int, typer.Option(help="Decides all noise.")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="timm's weights; random ones if left out.")]
Out = Annotated[Path | None, typer.Option(help="Keep a JSON line an image here; the same command then resumes.")]


def certify(
    model: Model, data: Data, sigma: Sigma, images: Images = 100, size: Size = 32, n0: N0 = 100, n: N = 10_000,
    alpha: Alpha = 0.001, seed: Seed = 0, pretrained: Pretrained = False, out: Out = None,
) -> None:  # fmt: skip
    """Certify a model's answers to a data set's test images by randomized smoothing."""
    subject, budget = _subject(model, data, images, size, pretrained), Budget(sigma, n0, n, alpha)

    def work(i: int) -> dict[str, Any]:
        x, y, image_id = subject.row(i)
        knobs = {"sigma": sigma, "n0": n0, "n": n, "alpha": alpha, "seed": seed, "ids": image_id, "progress": False}
        (found,) = certify_images(subject.model, x, **knobs)
        told = {key: getattr(found, key) for key in ("label", "radius", "count", "samples")}
        return {"true": int(y), **told}

    settings = {"command": "certify", **subject.settings, "budget": asdict(budget), "seed": seed}
    records = _swept(subject, work, out, settings, "certifying")
    if records is not None:
        _print_certified(records, budget)


def shadow(
    model: Model, data: Data, sigma: Sigma, images: Images = 20, size: Size = 32, n0: N0 = 100, n: N = 10_000,
    alpha: Alpha = 0.001, seed: Seed = 0, pretrained: Pretrained = False, out: Out = None,
    constants: Annotated[str, typer.Option(help=f"Published set: {', '.join(PUBLISHED)}.")] = "scripts",
    steps: Annotated[int | None, typer.Option(help="Steps, if not the set's.")] = None,
    draws: Annotated[int | None, typer.Option(help="Draws of noise, if not the set's.")] = None,
    n_select: Annotated[int, typer.Option(help="Samples of the certificates that choose among targets.")] = 200,
    save: Annotated[Path | None, typer.Option(help="Folder for the attacked images, as PNG.")] = None,
) -> None:  # fmt: skip
    """Spoof certificates by the Shadow Attack: images with a wrong label and a large radius."""
    own = choose(constants, PUBLISHED, "set of constants")
    own = replace(own, steps=own.steps if steps is None else steps, draws=own.draws if draws is None else draws)
    subject, budget = _subject(model, data, images, size, pretrained), Budget(sigma, n0, n, alpha)
    knobs = {"sigma": sigma, "n0": n0, "n": n, "alpha": alpha, "constants": own, "n_select": n_select, "seed": seed}

    def work(i: int) -> dict[str, Any]:
        x, y, image_id = subject.row(i)
        found = spoof(subject.model, x, y, ids=image_id, progress=False, **knobs)
        if save is not None:
            _save(found.images[0], save / f"{i:05d}.png")
        certificate = found.certificates[0]
        measured = {name: float(getattr(found, name)) for name in ("norms", "tv", "color", "dissimilarity")}
        return {
            "true": int(y), "target": int(found.targets), "label": certificate.label, "radius": certificate.radius,
            **measured,
        }  # fmt: skip

    settings = {"command": "attack shadow", **subject.settings, "budget": asdict(budget), "seed": seed,
                "constants": asdict(own), "n_select": n_select, "pictures": save is not None}  # fmt: skip
    records = _swept(subject, work, out, settings, "attacking")
    if records is not None:
        _print_spoofed(records, budget)


@dataclass(frozen=True)
class _Subject:
    """A model, the images it is asked about, and what tells this pair from others."""

    model: nn.Module
    part: Part
    settings: dict[str, Any]

    def row(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        one = self.part[i : i + 1]
        return one.x, one.y, one.ids


def _subject(name: str, data_name: str, images: int, size: int, pretrained: bool) -> _Subject:
    choose(data_name, data.SETS, "data set")
    check_count(images, what="images")
    drawn = data_name in data.scenes.DISTRIBUTIONS
    options = {"size": size, "n_train": 1, "n_validation": 1, "n_test": images} if drawn else {}
    part = data.load(data_name, **options).test[:images]
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    if name in (members := zoo.names()):
        model = zoo.load(name)
    else:
        try:
            model = build(name, pretrained=pretrained, in_channels=part.x.shape[1], seed=0)
        except UnknownName:
            choose(name, [*members, *_timm_names()], "model")
            raise
    weights = sha256()
    for key, tensor in sorted(model.state_dict().items()):
        weights.update(key.encode() + tensor.cpu().numpy().tobytes())
    _check_classes(name, model.eval(), data_name, part)
    settings = {"model": name, "weights": weights.hexdigest(), "data": data_name, **options, "device": device.type}
    return _Subject(model.to(device).eval(), part.to(device), settings)


def _check_classes(name: str, model: nn.Module, data_name: str, part: Part) -> None:
    """Refuse a model whose answers are not about the data's classes."""
    known = zoo.entry(name).class_names if name in zoo.names() else None
    wanted = SOURCES[data_name].class_names if data_name in SOURCES else None
    if known is not None and wanted is not None and known != wanted:
        raise ValueError(
            f"{name} tells {', '.join(known)} apart, and {data_name} has {', '.join(wanted)}: take data with the same "
            f"classes, such as {zoo.entry(name).data}"
        )
    with torch.no_grad():
        n_classes = model(part.x[:1]).shape[1]
    if n_classes <= int(part.y.max()):
        raise ValueError(f"{name} knows {n_classes} classes, and {data_name} has labels up to {int(part.y.max())}")


def _timm_names() -> list[str]:
    import timm  # half a second, and only needed for an error

    return timm.list_models()


def _swept(subject: _Subject, work: Any, path: Path | None, settings: dict, text: str) -> list[dict] | None:
    """Records in the order of the images; None where another process is still at work."""
    items = {str(i): i for i in range(len(subject.part))}
    if path is not None:
        found = sweep(items, work, path, settings=settings, text=text)
        out.print(f"records in {path}" if found is not None else "other processes are still at work")
        return found
    from thesis_kit.progress import track

    with track(text, len(items)) as bar:
        records = []
        for i in items.values():
            records.append(work(i))
            bar.advance()
    return records


def _save(image: torch.Tensor, path: Path) -> None:
    from torchvision.utils import save_image

    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(image, path)


def _print_certified(records: list[dict], budget: Budget) -> None:
    table = Table("radius", "certified accuracy", box=None, pad_edge=False)
    for radius in (0.0, *(budget.largest_radius * k / 4 for k in range(1, 5))):
        right = [r["label"] == r["true"] and r["radius"] >= radius * (1 - 1e-9) for r in records]
        table.add_row(f"{radius:.3f}", f"{100 * sum(right) / len(right):.1f}%")
    abstained = sum(record["label"] == ABSTAIN for record in records)
    out.print(f"{len(records)} images, {abstained} abstained ({budget})")
    out.print(table)


def _print_spoofed(records: list[dict], budget: Budget) -> None:
    wrong = [record for record in records if record["label"] not in (ABSTAIN, record["true"])]
    mean = sum(record["radius"] for record in wrong) / max(len(wrong), 1)
    out.print(
        f"{len(wrong)} of {len(records)} images are certified with a wrong label; mean radius of those {mean:.3f}, the "
        f"largest this budget can give is {budget.largest_radius:.3f} ({budget})"
    )
