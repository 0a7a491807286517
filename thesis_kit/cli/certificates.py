"""The command line's ``certify`` and ``attack shadow``: a model by name, a data set by name, one JSON line an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from thesis_kit.cli.pages import out as console
from thesis_kit.cli.stopping import kept
from thesis_kit.cli.subjects import (
    Arch,
    Data,
    Images,
    Name,
    NClasses,
    Pretrained,
    Seed,
    Size,
    Subject,
    Weights,
    named,
    real,
    subject_of,
)
from thesis_kit.files import only_writer, write_atomic

if TYPE_CHECKING:
    import torch

    from thesis_kit.certification import Budget

Sigma = Annotated[float, real("Standard deviation of the smoothing noise; pixels lie in [0, 1].")]
N0 = Annotated[int, typer.Option(help="Samples that choose the class.")]
N = Annotated[int, typer.Option(help="Samples that bound its probability.")]
Alpha = Annotated[float, real("Chance that a certificate is wrong.")]
Out = Annotated[Path | None, typer.Option(help="Keep a JSON line an image here; the same command then resumes.")]


def certify(
    data: Data, sigma: Sigma, model: Name = None, images: Images = 100, size: Size = 32, n0: N0 = 100, n: N = 10_000,
    alpha: Alpha = 0.001, seed: Seed = 0, pretrained: Pretrained = False, weights: Weights = None, arch: Arch = None,
    n_classes: NClasses = None, out: Out = None,
) -> None:  # fmt: skip
    """Certify a model's answers to a data set's test images by randomized smoothing."""
    with kept(_what_stays(out)):
        from thesis_kit import certification

        budget = certification.Budget(sigma, n0, n, alpha)
        subject = subject_of(named(model, pretrained, weights, arch, n_classes), data, images, size)
        knobs = {"sigma": sigma, "n0": n0, "n": n, "alpha": alpha, "seed": seed, "progress": False}

        def work(i: int) -> dict[str, Any]:
            x, y, image_id = subject.row(i)
            (found,) = certification.certify(subject.model, x, ids=image_id, **knobs)
            told = {key: getattr(found, key) for key in ("label", "radius", "count", "samples")}
            return {"true": int(y), **told}

        settings = {"command": "certify", **subject.settings, "budget": asdict(budget), "seed": seed}
        records = _swept(subject, work, out, settings, "certifying")
        if records is not None:
            _print_certified(records, budget)


def shadow(
    data: Data, sigma: Sigma, model: Name = None, images: Images = 20, size: Size = 32, n0: N0 = 100, n: N = 10_000,
    alpha: Alpha = 0.001, seed: Seed = 0, pretrained: Pretrained = False, weights: Weights = None, arch: Arch = None,
    n_classes: NClasses = None, out: Out = None,
    constants: Annotated[str, typer.Option(help="Published set: scripts, or another of theirs.")] = "scripts",
    steps: Annotated[int | None, typer.Option(help="Steps, if not the set's.")] = None,
    draws: Annotated[int | None, typer.Option(help="Draws of noise, if not the set's.")] = None,
    n_select: Annotated[int, typer.Option(help="Samples of the certificates that choose among targets.")] = 200,
    save: Annotated[Path | None, typer.Option(help="Folder for the attacked images, as PNG.")] = None,
) -> None:  # fmt: skip
    """Spoof certificates by the Shadow Attack: images with a wrong label and a large radius."""
    with kept(_what_stays(out, save)):
        from thesis_kit.attacks.shadow import PUBLISHED
        from thesis_kit.attacks.spoofing import spoof
        from thesis_kit.certification import Budget
        from thesis_kit.checks import choose

        if save is not None:
            with only_writer(save / "00000.png"):
                pass  # a folder that cannot be written to is noticed now
        own, budget = choose(constants, PUBLISHED, "set of constants"), Budget(sigma, n0, n, alpha)
        own = replace(own, steps=own.steps if steps is None else steps, draws=own.draws if draws is None else draws)
        subject = subject_of(named(model, pretrained, weights, arch, n_classes), data, images, size)
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


def _what_stays(out: Path | None, pictures: Path | None = None) -> Callable[[], str]:
    """What Ctrl-C leaves, and how to go on."""
    return lambda: _said(out, pictures)


def _said(out: Path | None, pictures: Path | None) -> str:
    if out is None:
        drawn = pictures is not None and any(pictures.glob("*.png"))
        what = f"the pictures made so far are in {pictures}, and no numbers were kept" if drawn else "nothing was kept"
        return f"{what}: with --out FILE every finished image is, and the same command goes on from there"
    if out.exists() or out.with_name(f"{out.name}.shares").exists():
        return f"finished images are kept in or beside {out}, and the same command goes on from there"
    return "nothing was kept yet, and the same command begins anew"


def _swept(subject: Subject, work: Any, path: Path | None, settings: dict, text: str) -> list[dict] | None:
    """Records in the order of the images; None where another process is still at work."""
    from thesis_kit.progress import track
    from thesis_kit.sweep import sweep

    items = {str(i): i for i in range(len(subject.part))}
    if path is not None:
        found = sweep(items, work, path, settings=settings, identity=settings["command"], text=text)
        console.print(
            f"records in {path}" if found is not None else f"this share is done; {path} waits for the other processes",
            markup=False,
        )
        return found
    with track(text, len(items)) as bar:
        records = []
        for i in items.values():
            records.append(work(i))
            bar.advance()
    return records


def _save(image: torch.Tensor, path: Path) -> None:
    from thesis_kit.extras import needs

    needs("torchvision.utils", extra="show").save_image(image, picture := BytesIO(), format="png")
    write_atomic(path, picture.getvalue())


def _print_certified(records: list[dict], budget: Budget) -> None:
    from thesis_kit.certification import ABSTAIN

    table = Table("radius", "certified accuracy", box=None, pad_edge=False)
    for radius in (0.0, *(budget.largest_radius * k / 4 for k in range(1, 5))):
        right = [r["label"] == r["true"] and r["radius"] >= radius * (1 - 1e-9) for r in records]
        table.add_row(f"{radius:.3f}", f"{100 * sum(right) / len(right):.1f}%")
    abstained = sum(record["label"] == ABSTAIN for record in records)
    console.print(f"{len(records)} images, {abstained} abstained ({budget})")
    console.print(table)


def _print_spoofed(records: list[dict], budget: Budget) -> None:
    from thesis_kit.certification import ABSTAIN

    wrong = [record for record in records if record["label"] not in (ABSTAIN, record["true"])]
    mean = sum(record["radius"] for record in wrong) / max(len(wrong), 1)
    console.print(
        f"{len(wrong)} of {len(records)} images are certified with a wrong label; mean radius of those {mean:.3f}, the "
        f"largest this budget can give is {budget.largest_radius:.3f} ({budget})"
    )
