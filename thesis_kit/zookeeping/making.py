"""Make the zoo: train a member by its recipe, measure the weights that are stored, and only then write them down.

Training resumes from a checkpoint whatever interrupted it. Weights are rounded to their stored form first and measured
then, so that every score belongs to the file beside it. ``problems`` and ``measure`` tell whether that is still so.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from thesis_kit import data, training
from thesis_kit.checks import NonFiniteOutput, choose
from thesis_kit.data.curriculum import Curriculum
from thesis_kit.data.digits import data_hash as digits_hash
from thesis_kit.data.parts import Part, Splits, Stream
from thesis_kit.files import DamagedFile, digest, note, only_writer, renewal, write_together
from thesis_kit.ledger.memory import code
from thesis_kit.ledger.provenance import commit, machine
from thesis_kit.ledger.runner import duration
from thesis_kit.models import Classifier, build, entries, zoo
from thesis_kit.models.zoo import Entry, MissingWeights, Score, UnfitWeights
from thesis_kit.training import TrainingReport
from thesis_kit.training.augmentation import AUGMENTATIONS
from thesis_kit.zookeeping.recipes import RECIPES, Recipe, Stage
from thesis_kit.zookeeping.scores import agrees, measure, measure_scores
from thesis_kit.zookeeping.wording import score_text, size_text

CHECKPOINTS = Path(".zoo")  # in the folder where the command runs; git ignores it
CHECKPOINT_SECONDS = 30.0
_TRIAL_UPDATES = 3  # minibatches that the expected time is judged by


@dataclass(frozen=True)
class Source:
    """What the zoo must know about a data set: the names of its classes, and its hash."""

    class_names: tuple[str, ...]
    data_hash: Callable[[], str]


SOURCES = {
    "digits": Source(tuple("0123456789"), digits_hash),
    **{name: Source(one.classes, one.data_hash) for name, one in data.scenes.DISTRIBUTIONS.items()},
}


def make(
    name: str,
    *,
    force: bool = False,
    folder: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    progress: Callable[[str], None] | None = None,
) -> Entry:
    """Train a member, measure what will be stored, and write weights and entry; the old ones stay till then.

    Args:
        name: of a recipe.
        force: train again although weights and entry are what the recipe asks for.
        folder: where entries and weights lie; the package's own folder unless given.
        checkpoint: folder of checkpoints, ``.zoo`` unless given; an interrupted run of the same recipe, data and code
            goes on from there.
        device: where to train; the GPU if there is one unless given.
        progress: called with a sentence before and after each part; None is silent.

    Returns:
        The member's entry.

    Raises:
        UnknownName: no recipe has the name. NonFiniteOutput: training diverged, or weights do not fit their storage.
        ValueError: another run is making this member, or the member it starts from cannot be used.
    """
    if name not in RECIPES and name in zoo.names(folder=folder):
        raise ValueError(f"{name} has no recipe here: {_whose(zoo.entry(name, folder=folder))}")
    recipe = choose(name, RECIPES, "zoo recipe")
    say = progress or (lambda sentence: None)
    folder = Path(folder or zoo.FOLDER)
    with only_writer(folder / _file(name, recipe)):
        checkpoints = Path(checkpoint or CHECKPOINTS) / name
        if not force and name in zoo.names(folder=folder) and _is_current(name, folder):
            _forget(checkpoints)
            say(f"{name} is up to date; --force trains it again")
            return _retitled(name, recipe, folder)
        plan = _plan(name, recipe, folder, device)
        with _telling(plan, checkpoints):
            return _make(plan, checkpoints, say)


@contextlib.contextmanager
def _telling(plan: _Plan, checkpoints: Path) -> Iterator[None]:
    """An interruption of the block says what there is, where training has not said it."""
    weights, checkpoint = plan.folder / _file(plan.name, plan.recipe), checkpoints / f"{plan.fingerprint()}.ckpt"
    made = renewal(weights)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if made():
            note(stop, f"{plan.name} is made, its weights are in {weights}")
        elif checkpoint.exists() and not getattr(stop, "__notes__", ()):
            note(stop, f"{checkpoint} keeps what was trained: the same call goes on from there")
        raise


def _make(plan: _Plan, checkpoints: Path, say: Callable[[str], None]) -> Entry:
    network, report = _train(plan, checkpoints, say)
    weights = _packed(network, plan.recipe.storage, plan.name)
    stored = zoo.with_weights(_network(plan), weights, plan.name)
    test = plan.splits.test.to(plan.device)
    say(f"{plan.name}: trained in {duration(report.seconds)}, measuring on {len(test):,} test images")
    entry = _entry(plan, report, weights, measure_scores(stored, test, plan.recipe.settings()))
    _record(entry, plan.folder, weights)
    _forget(checkpoints)
    for name, score in entry.scores.items():
        say(f"{plan.name}: {name} {score_text(score)}")
    held = sum(file.stat().st_size for file in plan.folder.glob("*.safetensors"))
    say(f"{plan.name}: {size_text(entry.bytes)}; shipped weights are {size_text(held)} in all")
    return entry


def _whose(about: Entry) -> str:
    """Why a member cannot be trained."""
    if about.package is None:
        return "give it one, or remove weights and entry"
    return f"others trained it, and the package {about.package.distribution} brings it"


def problems(name: str, *, folder: str | os.PathLike | None = None) -> list[str]:
    """What keeps a member from being what its recipe makes, a sentence each; no sentence if nothing does.

    Absent weights of a member that is not shipped are no problem; what their entry says may be one.
    """
    try:
        about = zoo.entry(name, folder=folder)
        if about.shipped or zoo.is_here(about, folder=folder):
            zoo.load(name, folder=folder)
    except (DamagedFile, MissingWeights, UnfitWeights) as error:
        return [str(error)]
    if about.package is not None:
        return []
    if name not in RECIPES:
        return [f"{name} has no recipe any more: give it one, or remove weights and entry"]
    return [f"{name} {what}: train it again with `make zoo NAME={name}`" for what in _outdated(about, folder)]


def audit(
    name: str,
    *,
    n: int | None = None,
    folder: str | os.PathLike | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[str]:
    """The member's ``problems``, and if there are none, its scores that no longer hold when measured on n test images.

    ``progress`` is called with a sentence for every score; None is silent.
    """
    say = progress or (lambda sentence: None)
    if faults := problems(name, folder=folder):
        return faults
    about = zoo.entry(name, folder=folder)
    if not zoo.is_here(about, folder=folder):
        say(f"{name}: {'its package is not installed' if about.package else 'not shipped, and not made here'}")
        return []
    if about.package is not None:
        say(f"{name}: its package's file is the one that was entered, and it answers as it did")
        return []
    for score, again in measure(name, n=n, folder=folder).items():
        said = f"{name}: {score} {score_text(again)}; recorded {score_text(about.scores[score])}"
        say(said)
        faults += [] if agrees(about.scores[score], again) else [said]
    return faults


def _outdated(about: Entry, folder: str | os.PathLike | None) -> list[str]:
    recipe = RECIPES[about.name]
    settings = recipe.settings()
    changed = [key for key in {**settings, **about.recipe} if settings.get(key) != about.recipe.get(key)]
    found = {
        f"was trained by another recipe ({', '.join(changed)} changed)": bool(changed),
        "was trained on other data": not changed and _data_hashes(recipe) != about.data_hashes,
        "has its weights in the wrong place": about.file != _file(about.name, recipe),
    }
    for role, name in recipe.rests_on.items():
        place = _home(name, folder)
        same = name in zoo.names(folder=place) and zoo.entry(name, folder=place).sha256 == about.training.get(role)
        found[f"was trained with other weights of its {role} {name}"] = not changed and not same
    return [what for what, is_so in found.items() if is_so]


def _home(name: str, folder: str | os.PathLike | None) -> str | os.PathLike | None:
    """Where a member lies that another one rests on: in the same folder, or else among the package's own."""
    own = name not in zoo.names(folder=folder) and name in zoo.names()
    return None if own else folder


def _is_current(name: str, folder: Path) -> bool:
    return not problems(name, folder=folder) and zoo.is_here(zoo.entry(name, folder=folder), folder=folder)


# What a recipe comes to


@dataclass(frozen=True)
class _Plan:
    """A recipe with its data, on a device: all that training needs."""

    name: str
    recipe: Recipe
    device: torch.device
    splits: Splits
    train: Part | Stream
    class_names: tuple[str, ...]
    data_hashes: dict[str, str]
    origins: dict[str, str]  # SHA-256 of the weights of the members that it rests on, by their role
    folder: Path

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        return tuple(self.splits.test.x.shape[1:])

    def fingerprint(self) -> str:
        """What a checkpoint must agree with to be gone on from."""
        return digest([self.recipe.settings(), self.data_hashes, self.origins, self.device.type, code()])[:16]


def _plan(name: str, recipe: Recipe, folder: Path, device: str | torch.device | None) -> _Plan:
    default = "cuda" if torch.cuda.is_available() else "cpu"
    source, hashes = choose(recipe.data, SOURCES, "data set of the zoo"), _data_hashes(recipe)
    splits = data.load(recipe.data, recipe.seed, **recipe.data_options)
    return _Plan(
        name=name,
        recipe=recipe,
        device=torch.device(default if device is None else device),
        splits=splits,
        train=_curriculum(recipe, splits),
        class_names=source.class_names,
        data_hashes=hashes,
        origins={role: zoo.entry(one, folder=_home(one, folder)).sha256 for role, one in recipe.rests_on.items()},
        folder=folder,
    )


def _curriculum(recipe: Recipe, splits: Splits) -> Part | Stream:
    """What to train on: the recipe's own data, or one stream after another."""
    if len(recipe.stages) == 1 and recipe.stages[0] == Stage(1.0):
        return splits.train
    streams = [_stage_data(recipe, stage) for stage in recipe.stages]
    if not all(isinstance(stream, Stream) for stream in streams):
        raise ValueError("stages need data that are streamed: leave out n_train, or train in one stage")
    if len(streams) == 1:
        return streams[0]
    total = -(-recipe.updates // recipe.make_method().replays)
    ends = [round(total * sum(stage.share for stage in recipe.stages[: i + 1])) for i in range(len(recipe.stages))]
    return Curriculum(streams, [end - start for start, end in zip([0, *ends[:-2]], ends[:-1], strict=True)])


def _stage_data(recipe: Recipe, stage: Stage) -> Part | Stream:
    options = recipe.data_options if stage.data_options is None else stage.data_options
    return data.load(stage.data or recipe.data, recipe.seed, **options).train


def _data_hashes(recipe: Recipe) -> dict[str, str]:
    names = sorted({recipe.data, *(stage.data or recipe.data for stage in recipe.stages)})
    return {name: choose(name, SOURCES, "data set of the zoo").data_hash() for name in names}


def _file(name: str, recipe: Recipe) -> str:
    return f"{name}.safetensors" if recipe.shipped else f"{zoo.LOCAL}/{name}.safetensors"


# Training


def _network(plan: _Plan) -> Classifier:
    """The recipe's network with the weights it starts from, on the device."""
    recipe = plan.recipe
    sizes = {"n_classes": len(plan.class_names), "in_channels": plan.image_shape[0]}
    network = build(recipe.architecture, seed=recipe.seed, **sizes, **recipe.options)
    if recipe.start is not None:
        home = _home(recipe.start, plan.folder)
        first = zoo.entry(recipe.start, folder=home)
        network = zoo.with_weights(network, zoo.stored_weights(first, folder=home), recipe.start)
    return network.to(plan.device)


def _fit(plan: _Plan, network: Classifier, *, updates: int, **knobs: Any) -> TrainingReport:
    recipe, method = plan.recipe, plan.recipe.make_method()
    if "teacher" in recipe.rests_on:
        teacher = recipe.rests_on["teacher"]
        method.teacher = zoo.load(teacher, device=plan.device, folder=_home(teacher, plan.folder))
    return training.train(
        network, plan.train, method, terms=recipe.make_terms(), updates=updates,
        batch_size=recipe.batch_size, lr=recipe.lr, schedule=recipe.schedule, momentum=recipe.momentum,
        weight_decay=recipe.weight_decay, optimizer=recipe.optimizer, precision=recipe.precision, seed=recipe.seed,
        augment=None if recipe.augment is None else AUGMENTATIONS[recipe.augment], **knobs,
    )  # fmt: skip


def _train(plan: _Plan, folder: Path, say: Callable[[str], None]) -> tuple[Classifier, TrainingReport]:
    """Train, or go on with an interrupted run of the same recipe, data and code."""
    recipe, checkpoint = plan.recipe, folder / f"{plan.fingerprint()}.ckpt"
    resumed = ", of which an interrupted run has made a part" if checkpoint.exists() else ""
    say(
        f"{plan.name}: {recipe.updates:,} updates of {recipe.method} training on {recipe.data}, about "
        f"{duration(_expected_seconds(plan))} here{resumed}"
    )
    network = _network(plan)
    report = _fit(plan, network, updates=recipe.updates, checkpoint=checkpoint, checkpoint_seconds=CHECKPOINT_SECONDS)
    return network, report


def _expected_seconds(plan: _Plan) -> float:
    """How long training takes on this machine, judged by a few updates of a network that is thrown away."""
    replays = plan.recipe.make_method().replays
    network, updates = _network(plan), _TRIAL_UPDATES * replays
    _fit(plan, network, updates=replays, progress=False)  # the first one is slower
    return _fit(plan, network, updates=updates, progress=False).seconds / updates * plan.recipe.updates


def _forget(folder: Path) -> None:
    """Remove a member's checkpoints, those of earlier recipes included."""
    for file in folder.glob("*.ckpt"):
        file.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


# Writing


def _packed(network: Classifier, storage: str, name: str) -> bytes:
    """The weights as a safetensors file, floating-point ones rounded to their storage."""
    dtype = getattr(torch, storage)
    rounded = {
        key: (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().contiguous().clone()
        for key, tensor in network.state_dict().items()
    }
    if not all(torch.isfinite(tensor).all() for tensor in rounded.values()):
        raise NonFiniteOutput(f'the weights of {name} do not fit into {storage}: set storage="float32" in its recipe')
    return safetensors.torch.save(rounded)


def _entry(plan: _Plan, report: TrainingReport, weights: bytes, scores: dict[str, Score]) -> Entry:
    from thesis_kit import __version__

    return Entry(
        name=plan.name,
        title=plan.recipe.title,
        recipe=plan.recipe.settings(),
        classes=plan.class_names,
        input_shape=plan.image_shape,
        data_hashes=plan.data_hashes,
        file=_file(plan.name, plan.recipe),
        sha256=sha256(weights).hexdigest(),
        bytes=len(weights),
        dtype=plan.recipe.storage,
        scores=scores,
        training={"passes": asdict(report.passes), "seconds": report.seconds, **plan.origins},
        measured={
            "date": date.today().isoformat(),
            "machine": machine(plan.device.type, torch.get_num_threads()),
            "command": f"make zoo NAME={plan.name}",
        },
        code={"version": __version__, "commit": commit()},
    )


def _record(entry: Entry, folder: Path, weights: bytes | None = None) -> None:
    """Put an entry in place of the member's old one, together with new weights if there are any."""
    told = {entries.path_of(entry.name, folder): entries.written(entry)}
    write_together(told | ({} if weights is None else {folder / entry.file: weights}))


def _retitled(name: str, recipe: Recipe, folder: Path) -> Entry:
    """The entry with the recipe's present wording, which decides no weight."""
    entry = zoo.entry(name, folder=folder)
    if entry.title != recipe.title:
        entry = replace(entry, title=recipe.title)
        _record(entry, folder)
    return entry
