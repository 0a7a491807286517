"""Run an experiment cell by cell, in processes of their own, and keep every finished cell at once.

A cell is one arm and one seed. The parent alone writes the result file, in one step after each cell; a run
that was killed or stopped goes on where it was. A file that other code or another configuration made is never
mixed with new cells: the run says so and starts over only when asked to. Where runs measured again have shown that
other code comes to the same outcomes (``verifying``), new cells join the file and name the code that made them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from thesis_kit.checks import check_count, choose
from thesis_kit.files import canonical, digest, only_writer
from thesis_kit.ledger.provenance import machine, modules_hash
from thesis_kit.ledger.results import (
    SCHEMA,
    Result,
    pack,
    read_document,
    result_path,
    stands_for,
    summarize,
    write_document,
)

Cell = tuple[str, int]
Say = Callable[[str], None]
OTHER_CODE = "other code"
THREADS = 1  # a thread a job: cells then run side by side and sum in the same order on any number of cores


class OutdatedResult(ValueError):
    """The result file was made by other code or another configuration than the run would use."""


class CellFailed(RuntimeError):
    """A cell could not be finished; the sentence names arm and seed, the cause is attached."""


def _no_networks(arm: str) -> dict[str, str]:
    """What arms rest on that make all their networks themselves."""
    return {}


@dataclass(frozen=True)
class Experiment:
    """A chapter's recorded runs in one arena.

    ``cells`` lists (arm, seed) in running order; ``run(arm, seed, config)``, a function at the top of its
    module, returns one cell: ``group`` (name of its test set), ``n``, ``outcomes`` (measure → one 0 or 1 an
    image), and as wanted ``values`` (measure → one number an image), ``scalars``, ``curves``, ``budget``,
    ``chosen``, ``trials``, ``seconds``. ``config`` holds all settings, as JSON can. ``data_hashes()`` names the
    data with their SHA-256; ``networks(arm)`` names the shipped networks that an arm rests on with that of their
    weights; ``expected_seconds(arm)`` guesses a cell's time on one core.
    """

    name: str
    arena: str
    config: dict[str, Any]
    data_hashes: Callable[[], dict[str, str]]
    cells: tuple[Cell, ...]
    run: Callable[[str, int, dict[str, Any]], dict[str, Any]]
    expected_seconds: Callable[[str], float]
    networks: Callable[[str], dict[str, str]] = _no_networks
    profile: str = "record"
    device: str = "cpu"

    @property
    def id(self) -> str:
        """Chapter and arena: the name of the result file."""
        return f"{self.name}.{self.arena}"

    @property
    def arms(self) -> list[str]:
        """All arms in running order."""
        return list(dict.fromkeys(arm for arm, _ in self.cells))

    def seeds(self, arm: str) -> list[int]:
        """The seeds an arm is run with."""
        return [seed for other, seed in self.cells if other == arm]


def run_experiment(
    experiment: Experiment,
    *,
    jobs: int = 1,
    only_arms: Iterable[str] | None = None,
    restart: bool = False,
    progress: Say | None = None,
    folder: str | os.PathLike | None = None,
) -> Result:
    """Measure the cells that are missing and return the result; finished cells survive any interruption.

    Args:
        experiment: what to run.
        jobs: cells at a time, each in a process with one thread.
        only_arms: run these arms only; None runs all.
        restart: forget these arms' recorded cells first (all cells where code or configuration changed).
        progress: called with a sentence before each arm and after each cell; None is silent.
        folder: where result files lie, the package's own folder unless given.

    Raises:
        OutdatedResult: the file was made by other code or another configuration, or one of these arms with other
            weights, and ``restart`` is not set.
        CellFailed: a cell raised or its process died; the other cells are kept.
    """
    check_count(jobs, what="jobs")
    say = progress or (lambda sentence: None)
    path = result_path(experiment.id, folder)
    wanted = experiment.arms if only_arms is None else only_arms
    arms = [choose(arm, experiment.arms, f"arm of {experiment.id}") for arm in wanted]
    with only_writer(path):
        document = _open(experiment, path, arms, restart)
        todo, here = _missing(experiment, document, arms), _origin(experiment)
        networks = {arm: experiment.networks(arm) for arm in arms}
        announce = _announcer(experiment, document, todo, jobs, say)
        for done, cell in enumerate(execute(experiment, todo, jobs, announce), start=1):
            _add(document, cell, here, networks[cell["arm"]])
            write_document(path, document)
            left = duration(expected_time(experiment, document, todo[done:], jobs))
            rest = f", about {left} left" if done < len(todo) else ""
            took = duration(cell["seconds"])
            say(f"{cell['arm']}, seed {cell['seed']}: {took} ({done} of {len(todo)}{rest})")
    return Result(document)


def start_over(experiment: Experiment, arms: Iterable[str], *, folder: str | os.PathLike | None = None) -> None:
    """Forget the recorded cells of these arms, or all cells where code, data or configuration changed."""
    path = result_path(experiment.id, folder)
    with only_writer(path):
        write_document(path, _open(experiment, path, arms, restart=True))


def cells_left(
    experiment: Experiment,
    arms: Iterable[str],
    *,
    restart: bool = False,
    folder: str | os.PathLike | None = None,
) -> tuple[list[Cell], float]:
    """The cells a run of these arms would still measure, and about how many seconds they take on one core."""
    document = _open(experiment, result_path(experiment.id, folder), arms, restart)
    todo = _missing(experiment, document, list(arms))
    return todo, expected_time(experiment, document, todo, 1)


def duration(seconds: float) -> str:
    """A length of time as a person would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def empty_document(experiment: Experiment) -> dict[str, Any]:
    """A document without cells, as code, data, configuration and machine are now."""
    from thesis_kit import __version__

    module = experiment.run.__module__
    return {
        "schema": SCHEMA,
        "experiment": experiment.name,
        "arena": experiment.arena,
        "profile": experiment.profile,
        "command": f"thesis-kit claims run --arena {experiment.arena}",
        "recorded": date.today().isoformat(),
        "code": {"version": __version__, "module": module, "modules": modules_hash(module)},
        "data": experiment.data_hashes(),
        "config": experiment.config,
        "config_hash": digest(experiment.config),
        "machine": machine(experiment.device, THREADS),
        "planned": {arm: experiment.seeds(arm) for arm in experiment.arms},
        "summary": [],
        "seconds": 0.0,
        "cells": [],
    }


def _open(experiment: Experiment, path: Path, arms: Iterable[str], restart: bool) -> dict[str, Any]:
    """The document to go on with: the recorded one where it fits, a fresh one where there is none or on restart."""
    fresh = empty_document(experiment)
    if not path.exists():
        return fresh
    document = read_document(path)
    changed = changes(document, fresh)
    if changed and not restart:
        verify = "let `thesis-kit claims verify` find out whether it measures the same, or " * (changed == [OTHER_CODE])
        raise OutdatedResult(
            f"{path.name} was recorded with {' and '.join(changed)} than now: "
            f"{verify}add --restart to forget it and measure again"
        )
    other = [] if changed or restart else other_weights(experiment, document, arms)
    if other:
        raise OutdatedResult(
            f"{path.name} has {', '.join(other)} with other weights of their networks than now: "
            "add --restart to forget and measure them again"
        )
    dropped = set(arms) if restart else set()
    for key in ("cells", "summary"):
        document[key] = [entry for entry in document[key] if entry["arm"] not in dropped]
    if changed or not document["cells"]:
        return fresh
    document["planned"] = fresh["planned"]
    return document


def changes(document: dict[str, Any], fresh: dict[str, Any]) -> list[str]:
    """What has changed between a recorded document and a fresh one, so that their cells must not be mixed."""
    happened = {
        "another configuration": document["config_hash"] != fresh["config_hash"],
        OTHER_CODE: not stands_for(document, fresh["code"]["modules"]),
        "other data": document["data"] != fresh["data"],
    }
    return [change for change, has in happened.items() if has]


def other_weights(experiment: Experiment, document: dict[str, Any], arms: Iterable[str]) -> list[str]:
    """Those of the arms that were recorded with other weights of their networks than there are now."""
    recorded = {cell["arm"]: cell.get("networks", {}) for cell in document["cells"]}
    return [arm for arm in arms if arm in recorded and recorded[arm] != experiment.networks(arm)]


def _missing(experiment: Experiment, document: dict[str, Any], arms: list[str]) -> list[Cell]:
    """Cells not yet measured, arm by arm so that a claim's arms become complete one after the other."""
    done = {(cell["arm"], cell["seed"]) for cell in document["cells"]}
    return [(arm, seed) for arm in arms for seed in experiment.seeds(arm) if (arm, seed) not in done]


def expected_time(experiment: Experiment, document: dict[str, Any], todo: list[Cell], jobs: int) -> float:
    """About how long ``todo`` takes: from recorded seconds where an arm has any, else the experiment's own guess."""
    recorded: dict[str, list[float]] = {}
    for cell in document["cells"]:
        recorded.setdefault(cell["arm"], []).append(cell["seconds"])
    known = {arm: sum(times) / len(times) for arm, times in recorded.items()}
    total = sum(known[arm] if arm in known else experiment.expected_seconds(arm) for arm, _ in todo)
    return total / min(jobs, max(len(todo), 1))


def _announcer(experiment: Experiment, document: dict, todo: list[Cell], jobs: int, say: Say) -> Callable[[str], None]:
    """A function that is told each arm that starts, and says once how many runs it has and how long they may take."""
    announced: set[str] = set()

    def announce(arm: str) -> None:
        if arm not in announced:
            announced.add(arm)
            cells = [cell for cell in todo if cell[0] == arm]
            seconds = duration(expected_time(experiment, document, cells, jobs))
            say(f"{arm}: {len(cells)} {'run' if len(cells) == 1 else 'runs'}, about {seconds}")

    return announce


def _origin(experiment: Experiment) -> dict[str, Any]:
    """Where new cells come from: this machine and the hash of the modules as they are now."""
    return {
        "machine": machine(experiment.device, THREADS),
        "modules": modules_hash(experiment.run.__module__),
    }


def _add(document: dict[str, Any], cell: dict[str, Any], here: dict[str, Any], networks: dict[str, str]) -> None:
    """Put a finished cell into the document and bring its arm's summary up.

    With it go the networks that it rests on, and its origin where that is another than the document's.
    """
    usual = {"machine": document["machine"], "modules": document["code"]["modules"]}
    other = {key: value for key, value in here.items() if value != usual[key]}
    document["cells"].append({**cell, **({"networks": networks} if networks else {}), **other})
    others = [row for row in document["summary"] if row["arm"] != cell["arm"]]
    document["summary"] = others + summarize(Result(document), cell["arm"])
    document["seconds"] = sum(cell["seconds"] for cell in document["cells"])
    document["recorded"] = date.today().isoformat()


def execute(experiment: Experiment, todo: list[Cell], jobs: int, announce: Callable[[str], None]) -> Iterator[dict]:
    """Run cells in worker processes, at most ``jobs`` at a time, and yield each as it is finished."""
    if not todo:
        return
    waiting, running = list(reversed(todo)), {}
    with _workers(min(jobs, len(todo))) as pool:
        while waiting or running:
            while waiting and len(running) < jobs:
                arm, seed = waiting.pop()
                announce(arm)
                running[pool.submit(_run_cell, experiment.run, arm, seed, experiment.config)] = arm, seed
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield _finished(future, *running.pop(future))


def _finished(future: Future, arm: str, seed: int) -> dict[str, Any]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise CellFailed(
            f"the process of {arm}, seed {seed}, or one beside it died (out of memory?): "
            "what is recorded is kept, run the command again, with fewer jobs if need be"
        ) from error
    except Exception as error:
        raise CellFailed(
            f"{arm}, seed {seed} failed ({type(error).__name__}: {error}): what is recorded is kept"
        ) from error


def _run_cell(run: Callable[..., dict[str, Any]], arm: str, seed: int, config: dict[str, Any]) -> dict[str, Any]:
    """In the worker: measure one cell and bring it into the form of the result file."""
    cell = {"arm": arm, "seed": seed, **run(arm, seed, config)}
    cell["outcomes"] = {
        name: bits if isinstance(bits, str) else _packed(bits, cell["n"], name)
        for name, bits in cell["outcomes"].items()
    }
    for name, numbers in cell.get("values", {}).items():
        if len(numbers) != cell["n"]:
            raise ValueError(f"value {name} has {len(numbers)} entries for {cell['n']} images")
    cell = {**cell, **{key: cell.get(key, {}) for key in ("scalars", "curves", "budget")}}
    cell.setdefault("seconds", 0.0)
    canonical(cell)  # NaN, tensors and the like are refused here, beside their cause, rather than when all is written
    return cell


def _packed(bits: Any, n: int, name: str) -> str:
    if len(bits) != n:
        raise ValueError(f"outcome {name} has {len(bits)} entries for {n} images")
    return pack(bits)


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes with one thread each, which never outlives the block, nor the parent's death."""
    before = set(multiprocessing.active_children())
    threads = {f"{name}_NUM_THREADS": THREADS for name in ("OMP", "MKL", "OPENBLAS")}
    with environment(**threads, OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME=0):  # who waits leaves the core to the others
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_prepare_worker)
        try:
            yield pool
        except BaseException:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, end when the parent ends, and compute in one thread."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    torch.set_num_threads(THREADS)


@contextlib.contextmanager
def environment(**values: object) -> Iterator[None]:
    """Environment variables for the length of the block, also for the processes it starts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
