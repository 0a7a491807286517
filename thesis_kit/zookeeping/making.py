"""Make the zoo: train a member by its recipe, measure the weights that are stored, and only then write them down.

Training resumes from a checkpoint whatever interrupted it. Weights are rounded to their stored form first and measured
then, so that every score belongs to the file beside it. ``auditing.py`` tells whether that is still so.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from thesis_kit import training
from thesis_kit.checks import NonFiniteOutput, choose
from thesis_kit.files import note, only_writer, renewal, write_together
from thesis_kit.ledger.provenance import commit, machine
from thesis_kit.ledger.runner import duration
from thesis_kit.models import entries, zoo
from thesis_kit.models.zoo import Entry, Score, Sibling
from thesis_kit.training import TrainingReport
from thesis_kit.training.augmentation import AUGMENTATIONS
from thesis_kit.zookeeping.auditing import is_current, problems
from thesis_kit.zookeeping.member_scores import measure_scores
from thesis_kit.zookeeping.plans import Making, file_of, home_of, is_sibling, plan_of
from thesis_kit.zookeeping.recipe import Recipe
from thesis_kit.zookeeping.recipes import RECIPES
from thesis_kit.zookeeping.wording import score_text, size_text

CHECKPOINTS = Path(".zoo")  # in the folder where the command runs; git ignores it
CHECKPOINT_SECONDS = 30.0
_TRIAL_UPDATES = 3  # minibatches that the expected time is judged by


def make(
    name: str,
    *,
    seed: int | None = None,
    force: bool = False,
    folder: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    progress: Callable[[str], None] | None = None,
) -> Entry:
    """Train a member, measure what will be stored, and write weights and entry; the old ones stay till then.

    Args:
        name: of a recipe.
        seed: of a cohort, make the network of this seed; the member itself, seed 0, unless given.
        force: train again although weights and entry are what the recipe asks for.
        folder: where entries and weights lie; the package's own folder unless given.
        checkpoint: folder of checkpoints, ``.zoo`` unless given; an interrupted run of the same recipe, data and code
            goes on from there.
        device: where to train; the GPU if there is one unless given.
        progress: called with a sentence before and after each part; None is silent.

    Returns:
        The member's entry, or that of the seed.

    Raises:
        UnknownName: no recipe has the name. NonFiniteOutput: training diverged, or weights do not fit their storage.
        ValueError: another run is making this network, the member it starts from cannot be used, or the recipe has no
            such seed.
    """
    if name not in RECIPES and name in zoo.names(folder=folder):
        raise ValueError(f"{name} has no recipe here: {_whose(zoo.entry(name, folder=folder))}")
    recipe = choose(name, RECIPES, "zoo recipe")
    recipe = recipe if seed is None else recipe.of_seed(seed)
    say = progress or (lambda sentence: None)
    folder = Path(folder or zoo.FOLDER)
    if is_sibling(name, recipe):
        _check_first(name, folder)
    with only_writer(folder / file_of(name, recipe)):
        plain = name if not is_sibling(name, recipe) else f"{name}.seed{recipe.seed}"
        checkpoints = Path(checkpoint or CHECKPOINTS) / plain
        if not force and is_current(name, recipe, folder):
            _forget(checkpoints)
            say(f"{plain} is up to date; --force trains it again")
            return _retitled(name, recipe, folder)
        plan = plan_of(name, recipe, folder, device)
        with _telling(plan, checkpoints):
            return _make(plan, checkpoints, say)


@contextlib.contextmanager
def _telling(plan: Making, checkpoints: Path) -> Iterator[None]:
    """An interruption of the block says what there is, where training has not said it."""
    weights, checkpoint = plan.folder / file_of(plan.name, plan.recipe), checkpoints / f"{plan.fingerprint()}.ckpt"
    made = renewal(weights)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if made():
            note(stop, f"{plan.label} is made, its weights are in {weights}")
        elif checkpoint.exists() and not getattr(stop, "__notes__", ()):
            note(stop, f"{checkpoint} keeps what was trained: the same call goes on from there")
        raise


def _make(plan: Making, checkpoints: Path, say: Callable[[str], None]) -> Entry:
    network, report = _train(plan, checkpoints, say)
    weights = _packed(network, plan.recipe.storage, plan.name)
    stored = zoo.with_weights(plan.network(), weights, plan.name)
    test = plan.splits.test.to(plan.device)
    say(f"{plan.label}: trained in {duration(report.seconds)}, measuring on {len(test):,} test items")
    entry = _entry(plan, report, weights, measure_scores(stored, test, plan.recipe.settings()))
    _record(entry, plan.folder, weights)
    _forget(checkpoints)
    for name, score in entry.scores.items():
        say(f"{plan.label}: {name} {score_text(score)}")
    held = sum(file.stat().st_size for file in plan.folder.glob("*.safetensors"))
    say(f"{plan.label}: {size_text(entry.bytes)}; shipped weights are {size_text(held)} in all")
    return entry


def _check_first(name: str, folder: Path) -> None:
    """Require the entry of a cohort's first network, by the present recipe, before another one; of a network that is
    not shipped the weights may be elsewhere."""
    if name not in zoo.names(folder=folder) or problems(name, folder=folder):
        raise ValueError(
            f"{name} of seed 0 comes first, and is not in {folder} or no longer what its recipe makes: train it "
            f"without --seed"
        )


def _whose(about: Entry) -> str:
    """Why a member cannot be trained."""
    if about.package is None:
        return "give it one, or remove weights and entry"
    return f"others trained it, and the package {about.package.distribution} brings it"


# Training


def _fit(plan: Making, network: nn.Module, *, updates: int, **knobs: Any) -> TrainingReport:
    recipe, method = plan.recipe, plan.recipe.make_method()
    if "teacher" in recipe.rests_on:
        teacher = recipe.rests_on["teacher"]
        method.teacher = zoo.load(teacher, device=plan.device, folder=home_of(teacher, plan.folder))
    return training.train(
        network, plan.train, method, terms=recipe.make_terms(), updates=updates,
        batch_size=recipe.batch_size, lr=recipe.lr, schedule=recipe.schedule, momentum=recipe.momentum,
        weight_decay=recipe.weight_decay, optimizer=recipe.optimizer, precision=recipe.precision, seed=recipe.seed,
        augment=None if recipe.augment is None else AUGMENTATIONS[recipe.augment], **knobs,
    )  # fmt: skip


def _train(plan: Making, folder: Path, say: Callable[[str], None]) -> tuple[nn.Module, TrainingReport]:
    """Train, or go on with an interrupted run of the same recipe, data and code."""
    recipe, checkpoint = plan.recipe, folder / f"{plan.fingerprint()}.ckpt"
    resumed = ", of which an interrupted run has made a part" if checkpoint.exists() else ""
    say(
        f"{plan.label}: {recipe.updates:,} updates of {recipe.method} training on {recipe.data}, about "
        f"{duration(_expected_seconds(plan))} here{resumed}"
    )
    network = plan.network()
    report = _fit(plan, network, updates=recipe.updates, checkpoint=checkpoint, checkpoint_seconds=CHECKPOINT_SECONDS)
    return network, report


def _expected_seconds(plan: Making) -> float:
    """How long training takes on this machine, judged by a few updates of a network that is thrown away."""
    replays = plan.recipe.make_method().replays
    network, updates = plan.network(), _TRIAL_UPDATES * replays
    _fit(plan, network, updates=replays, progress=False)  # the first one is slower
    return _fit(plan, network, updates=updates, progress=False).seconds / updates * plan.recipe.updates


def _forget(folder: Path) -> None:
    """Remove a member's checkpoints, those of earlier recipes included."""
    for file in folder.glob("*.ckpt"):
        file.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


# Writing


def _packed(network: nn.Module, storage: str, name: str) -> bytes:
    """The weights as a safetensors file, floating-point ones rounded to their storage."""
    dtype = getattr(torch, storage)
    rounded = {
        key: (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().contiguous().clone()
        for key, tensor in network.state_dict().items()
    }
    if not all(torch.isfinite(tensor).all() for tensor in rounded.values()):
        raise NonFiniteOutput(f'the weights of {name} do not fit into {storage}: set storage="float32" in its recipe')
    return safetensors.torch.save(rounded)


def _entry(plan: Making, report: TrainingReport, weights: bytes, scores: dict[str, Score]) -> Entry:
    from thesis_kit import __version__

    seed = f" SEED={plan.recipe.seed}" if is_sibling(plan.name, plan.recipe) else ""
    return replace(
        plan.entry(),
        sha256=sha256(weights).hexdigest(),
        bytes=len(weights),
        scores=scores,
        training={"passes": asdict(report.passes), "seconds": report.seconds, **plan.origins},
        measured={
            "date": date.today().isoformat(),
            "machine": machine(plan.device.type, torch.get_num_threads()),
            "command": f"make zoo NAME={plan.name}{seed}",
        },
        code={"version": __version__, "commit": commit()},
    )


def _record(entry: Entry, folder: Path, weights: bytes | None = None) -> None:
    """Put an entry in place of the old one, together with new weights if there are any; two runs may do so at once."""
    path = entries.path_of(entry.name, folder)
    with only_writer(path, wait=True):
        told = {path: entries.written(_with_siblings(entry, folder))}
        write_together(told | ({} if weights is None else {folder / entry.file: weights}))


def _with_siblings(entry: Entry, folder: Path) -> Entry:
    """The member's entry as it shall be written: an old one's siblings stay as long as they are of the same recipe."""
    try:
        old = zoo.entry(entry.name, folder=folder)
    except ValueError:  # there is none yet, or it is damaged
        return entry
    seed = entry.recipe["seed"]
    if seed != RECIPES[entry.name].seed:
        own, usual = entry.recipe["precision"], old.recipe["precision"]
        told = {one.name: getattr(entry, one.name) for one in fields(Sibling) if one.name != "precision"}
        sibling = Sibling(**told, precision=None if own == usual else own)
        known = {**old.siblings, str(seed): sibling}
        return replace(old, siblings=dict(sorted(known.items(), key=lambda item: int(item[0]))))
    same = (entry.recipe, entry.data_hashes) == (old.recipe, old.data_hashes)
    return replace(entry, siblings=old.siblings if same else {})


def _retitled(name: str, recipe: Recipe, folder: Path) -> Entry:
    """The entry with the recipe's present wording, which decides no weight."""
    entry = zoo.entry(name, seed=recipe.seed, folder=folder)
    if entry.title != recipe.title and not is_sibling(name, recipe):
        entry = replace(entry, title=recipe.title)
        _record(entry, folder)
    return entry
