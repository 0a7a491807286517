"""One training loop for every method: minibatches, schedule, precision, passes, checkpoints.

Nothing in it remembers how it got here: the order of an epoch and the random numbers of an update are functions of
(seed, epoch) and (seed, update). A checkpoint is therefore weights, optimizer and a counter, and a run that is killed
and resumed ends, on a CPU, with the weights of an unbroken one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from thesis_kit.asking import Model, as_module, gradients
from thesis_kit.checks import (
    NonFiniteOutput,
    check_count,
    choose,
)
from thesis_kit.data.parts import Targets
from thesis_kit.files.checkpoints import Checkpoint
from thesis_kit.passes import Passes, count_passes
from thesis_kit.progress import track
from thesis_kit.randomness import ImageRandom, mix_seed, seed_default
from thesis_kit.training.method import Classification, Method
from thesis_kit.training.methods import Natural
from thesis_kit.training.minibatches import Data, identify, minibatches, stored
from thesis_kit.training.modes import as_found, freeze, room_for_one, set_modes
from thesis_kit.training.precision import resolve_precision
from thesis_kit.training.run import Run, Term, public_settings, term_name
from thesis_kit.training.run_state import identity, leaving, state_of, take_up
from thesis_kit.training.schedules import SCHEDULES

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass
class TrainingReport:
    """What a training run did and cost.

    ``passes`` are those of the weight updates and of the attacks that serve them, counted from the model's calls;
    the probe's own are not among them. ``history`` has one entry a probe.
    """

    updates: int = 0
    passes: Passes = field(default_factory=Passes)
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    model: Model,
    data: Data,
    method: Method | None = None,
    *,
    terms: Iterable[Term] = (),
    updates: int,
    batch_size: int = 128,
    lr: float = 0.1,
    schedule: str = "one-cycle",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    optimizer: str = "sgd",
    augment: Callable[[Tensor, ImageRandom], Tensor] | None = None,
    frozen: Iterable[nn.Module | nn.Parameter] = (),
    precision: str | None = None,
    seed: int = 0,
    probe: Callable[[nn.Module], dict[str, float]] | None = None,
    probe_every: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    workers: int = 0,
    progress: bool | None = None,
) -> TrainingReport:
    """Train ``model`` in place by ``method``; ten lines suffice to make one's own model robust.

    Args:
        model: pixels in [0, 1] to logits; trained in training mode, each module left in the mode it was in. Parameters
            without ``requires_grad`` are not trained.
        data: a ``Part`` or a pair (x, y) of tensors or arrays in memory (moved to the model's device), a ``Stream``
            that renders minibatch after minibatch, a map-style ``Dataset`` of (image, label), or minibatches (x, y, …)
            that can be read again and again, such as a ``DataLoader``, which brings batch size and order of its own.
        method: a ``Method`` such as ``Natural()``, ``PGD(eps)``, ``fgsm_rs(eps)``, ``n_fgsm(eps)``,
            ``Free(eps, replays)``; natural if None. Its ``check`` says what inputs and targets it wants: images and
            labels for these, token ids for ``Contrastive``, transcripts for ``CTC``.
        terms: regularizers, added to the cross-entropy of whatever images the method descends on: functions
            (model, x, y, logits) -> scalar, such as those of ``training.regularizers``. Attacks ascend without them,
            except for Free's, whose gradient comes from the update's own pass.
        updates: weight updates in all. Free with m replays sees updates/m minibatches, every other method ``updates``.
        batch_size: images a minibatch; an epoch's last one may be smaller. A stream has no epochs. Where a minibatch is
            a single image, BatchNorm layers that see one value a channel take their running statistics.
        lr: peak learning rate. schedule: "one-cycle", "cosine", "steps" or "constant".
        momentum, weight_decay: of SGD. optimizer: "sgd", "adam" or "adamw" (momentum is then β₁).
        augment: maps a minibatch and its random numbers to the minibatch to train on.
        frozen: modules and parameters that keep their weights; the modules are in evaluation mode, so that their
            normalization keeps its statistics. No gradient is computed for them, nor behind them where they come first.
        precision: of the passes, the method's attacks included: "float32" (more exactly, the model's own), "float16"
            with loss scaling, or "bfloat16". None means float16 on a GPU and float32 on a CPU. Weights keep theirs.
        seed: fixes the order of stored data, random starts, dropout and what a ``Dataset`` draws from torch's
            generator; the caller's random state is left as it was.
        probe: measured on the model in evaluation mode every ``probe_every`` updates and at the end, into ``history``.
        checkpoint: file to write at most every ``checkpoint_seconds``, at the end and on Ctrl-C, and to resume from if
            it exists. It belongs to these data, start weights, settings and number of threads: on a CPU the last digits
            of weights depend on it (``torch.set_num_threads``), as on the processor.
        workers: processes that load a ``Dataset``; a ``Part`` needs none.
        progress: show a bar; None follows the session.

    Returns:
        A ``TrainingReport`` with passes, seconds and history, those before an interruption included.

    Raises:
        ValueError: data, labels or hyper-parameters that cannot be meant, an altered checkpoint, one of another run, or
            one that another process works on.
        WriteFailed: the checkpoint cannot be written; the one before is still there.
        NonFiniteOutput: training diverged; names the update.

    Examples:
        >>> network = tk.build("small_cnn", width=4, in_channels=1, seed=0)
        >>> report = tk.train(network, digits, tk.training.Free(eps=0.15, replays=2), updates=4, progress=False)
        >>> report.updates, report.passes.backward
        (4, 4)
    """
    method = Natural() if method is None else method
    check_count(updates, what="updates")
    check_count(batch_size, what="batch_size")
    model, data = as_module(model), stored(data)
    frozen, terms, device = tuple(frozen), tuple(terms), _device(model)
    settings = {"method": f"{type(method).__name__} {public_settings(method)}", "updates": updates,
                "batch_size": batch_size, "lr": float(lr), "schedule": schedule, "momentum": float(momentum),
                "weight_decay": float(weight_decay), "optimizer": optimizer, "seed": seed,
                "precision": resolve_precision(precision, device), "images": identify(data),
                "terms": [term_name(term) for term in terms] or None}  # fmt: skip
    with gradients("training", model), as_found(model):
        freeze(frozen)
        set_modes(model, method.training_mode, frozen)
        run, settings["weights"] = _start(model, method, settings, terms), _trained(model)
        method.restore({})  # an object that served another run starts anew
        if checkpoint is not None:
            settings |= identity(model, data, method, terms, augment, checkpoint)
        file = Checkpoint(checkpoint, "training run", settings, every=checkpoint_seconds, device=device)
        with file.held() as kept, leaving(model, checkpoint, settings):
            report = TrainingReport() if kept is None else take_up(kept, run, method, TrainingReport)
            started, before = time.monotonic(), report.seconds
            begin, end = (-(-count // method.replays) for count in (run.done, updates))
            served = minibatches(data, begin, end, batch_size=batch_size, seed=seed, device=device, workers=workers)
            with torch.random.fork_rng(), track("training", updates, progress, start=run.done) as bar:
                for x, y, run.index in served:
                    first = run.done
                    seed_default(mix_seed(seed, first), device)  # dropout's, forgotten when the fork ends
                    method.check(model, x, y, run)
                    if augment is not None:
                        x = augment(x, run.random(x).fork(1))
                    alone = room_for_one(model, x) if isinstance(method, Classification) else nullcontext()
                    with alone, count_passes(model) as passes:
                        _serve(method, x, y, run)
                    report.passes, report.updates = report.passes + passes, run.done
                    if _due(probe, probe_every, first, run):
                        report.history.append({"update": run.done, **_measure(probe, model)})
                        set_modes(model, method.training_mode, frozen)
                    report.seconds = before + time.monotonic() - started
                    if checkpoint is not None:
                        place = f"{run.done:,} of {updates:,} updates"
                        file.reached(state_of(run, method, report), place, finished=not run.updates_left)
                    bar.advance(run.done - first)
    return report


def _serve(method: Method, x: Tensor, y: Targets, run: Run) -> None:
    """The method's updates on one minibatch; if they diverge, say where."""
    try:
        method.minibatch(x, y, run)
    except NonFiniteOutput as error:
        raise NonFiniteOutput(
            f"training diverged at update {run.done} ({error}): lower the learning rate or look at the data"
        ) from error


def _device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise ValueError("the model has no parameters: there is nothing to train")
    return parameter.device


def _trained(model: nn.Module) -> int:
    """How many weights are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _start(model: nn.Module, method: Method, settings: dict, terms: tuple[Term, ...]) -> Run:
    """The run before its first update."""
    return Run(model, _optimizer(model, method, settings), choose(settings["schedule"], SCHEDULES, "schedule"),
               updates=settings["updates"], seed=settings["seed"], precision=settings["precision"],
               terms=terms)  # fmt: skip


def _optimizer(model: nn.Module, method: Method, settings: dict) -> torch.optim.Optimizer:
    lr, momentum, decay = (settings[name] for name in ("lr", "momentum", "weight_decay"))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("every parameter of the model is frozen: there is nothing to train")
    kind = choose(settings["optimizer"], OPTIMIZERS, "optimizer")
    momentum = {"momentum": momentum} if kind is torch.optim.SGD else {"betas": (momentum, 0.999)}
    optimizer = kind(method.groups(model), lr=lr, weight_decay=decay, **momentum)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def _due(probe: Callable | None, every: int, first: int, run: Run) -> bool:
    """Whether a multiple of ``every`` has been passed since update ``first``, or the end is reached."""
    return probe is not None and (run.updates_left == 0 or (every > 0 and run.done // every > first // every))


def _measure(probe: Callable, model: nn.Module) -> dict[str, float]:
    model.eval()
    return {name: float(value) for name, value in probe(model).items()}
