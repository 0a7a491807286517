"""Run arms cell by cell, in processes of their own, and keep every finished cell at once.

A cell is one arm and one seed. The parent alone writes, one line after each cell; a run that was killed or stopped goes
on where it was. A cell that was recorded with other settings, data or weights than its arm has is never mixed with new
ones: the run says so and starts that arm over only when asked to. No other arm is touched by it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from datetime import date
from typing import Any

from thesis_kit.files import DamagedFile
from thesis_kit.ledger.arm import Arm, Experiment
from thesis_kit.ledger.cells import Cell, arm_files, forget_cells, keep_cell, packed, read_cells
from thesis_kit.ledger.provenance import commit, environment, machine
from thesis_kit.ledger.results import Result, departure, load_result
from thesis_kit.names import check_count

Say = Callable[[str], None]
THREADS = 1  # a thread a job: cells then run side by side and sum in the same order on any number of cores


class OutdatedResult(ValueError):
    """An arm was recorded with other settings, data or weights than the run would use."""


class CellFailed(RuntimeError):
    """A cell could not be finished; the sentence names arm and seed, the cause is attached."""


def run_experiment(
    experiment: Experiment,
    *,
    jobs: int = 1,
    only_arms: Iterable[str] | None = None,
    restart: bool = False,
    progress: Say | None = None,
    folder: str | os.PathLike | None = None,
    executor: Executor | None = None,
) -> Result:
    """Measure the cells that are missing and return the result; finished cells survive any interruption.

    Args:
        experiment: what to run.
        jobs: cells at a time, each in a process with one thread.
        only_arms: run these arms only; None runs all.
        restart: forget these arms' recorded cells first.
        progress: called with a sentence before each arm and after each cell; None is silent.
        folder: where recordings lie, the package's own unless given.
        executor: what runs the cells, ``jobs`` at a time; processes of this machine unless given.

    Raises:
        OutdatedResult: one of these arms was recorded with other settings, data or weights, and ``restart`` is not set.
        CellFailed: a cell raised or its process died; the other cells are kept.
        DamagedFile: the file of one of these arms is not what was written.
    """
    check_count(jobs, what="jobs")
    say = progress or (lambda sentence: None)
    arms = _chosen(experiment, only_arms)
    if restart:
        start_over(experiment, [arm.name for arm in arms], folder=folder)
    todo, identities = _missing(experiment, arms, folder)
    announce = _announcer(experiment, todo, jobs, say, folder)
    for done, cell in enumerate(execute(todo, jobs, announce, executor), start=1):
        keep_cell(experiment.id, {**cell, **identities[cell["arm"], cell["seed"]], **_origin()}, folder)
        left = _length(expected_time(experiment, todo[done:], jobs, folder))
        rest = f"{left} left" if done < len(todo) else ""
        took = f"{done} of {len(todo)}{', ' * bool(rest)}{rest}"
        say(f"{cell['arm']}, seed {cell['seed']}: {duration(cell['seconds'])} ({took})")
    return load_result(experiment.id, folder, experiment)


def start_over(experiment: Experiment, arms: Iterable[str], *, folder: str | os.PathLike | None = None) -> None:
    """Forget the recorded cells of these arms."""
    for arm in arms:
        forget_cells(experiment.id, arm, folder)


def cells_left(
    experiment: Experiment, arms: Iterable[str], *, folder: str | os.PathLike | None = None
) -> tuple[list[tuple[Arm, int]], float | None]:
    """The cells a run of these arms would still measure, and about how many seconds they take on one core (None where
    nothing alike has been recorded)."""
    todo, _ = _missing(experiment, _chosen(experiment, arms), folder)
    return todo, expected_time(experiment, todo, 1, folder)


def duration(seconds: float) -> str:
    """A length of time as a person would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _length(seconds: float | None) -> str:
    return "for an unknown time" if seconds is None else f"about {duration(seconds)}"


def _chosen(experiment: Experiment, names: Iterable[str] | None) -> list[Arm]:
    return list(experiment.arms) if names is None else [experiment.arm(name) for name in names]


def _missing(
    experiment: Experiment, arms: list[Arm], folder: str | os.PathLike | None
) -> tuple[list[tuple[Arm, int]], dict[tuple[str, int], dict[str, Any]]]:
    """Cells not yet measured, arm by arm so that a claim's arms become complete one after the other, and what each is
    measured with."""
    todo, identities = [], {}
    for arm in arms:
        recorded = _recorded(experiment, arm.name, folder)
        identities |= {(arm.name, seed): arm.identity(seed) for seed in {*arm.seeds, *recorded}}
        changed = [departure(cell, identities[arm.name, seed]) for seed, cell in recorded.items()]
        changed = [said for said in changed if said]
        if changed:
            raise OutdatedResult(
                f"{arm.name} of {experiment.id} was recorded with something else than it has now ({changed[0]}): "
                "add --restart to forget it and measure it again"
            )
        todo += [(arm, seed) for seed in arm.seeds if seed not in recorded]
    return todo, identities


def _recorded(experiment: Experiment, arm: str, folder: str | os.PathLike | None) -> dict[int, Cell]:
    files = arm_files(experiment.id, folder)
    return read_cells(files[arm], arm) if arm in files else {}


def expected_time(
    experiment: Experiment, todo: list[tuple[Arm, int]], jobs: int, folder: str | os.PathLike | None = None
) -> float | None:
    """About how long ``todo`` takes: an arm's recorded mean, or that of all recorded arms for one that is new."""
    times = {arm.name: _seconds(experiment, arm.name, folder) for arm in experiment.arms}
    known = {arm: sum(seconds) / len(seconds) for arm, seconds in times.items() if seconds}
    if not known and todo:
        return None
    usual = sum(known.values()) / len(known) if known else 0.0
    return sum(known.get(arm.name, usual) for arm, _ in todo) / min(jobs, max(len(todo), 1))


def _seconds(experiment: Experiment, arm: str, folder: str | os.PathLike | None) -> list[float]:
    """How long an arm's recorded cells took; nothing of a damaged file, which is for those to report who need it."""
    try:
        return [cell["seconds"] for cell in _recorded(experiment, arm, folder).values()]
    except DamagedFile:
        return []


def _announcer(
    experiment: Experiment, todo: list[tuple[Arm, int]], jobs: int, say: Say, folder: str | os.PathLike | None
) -> Callable[[str], None]:
    """A function that is told each arm that starts, and says once how many runs it has and how long they may take."""
    announced: set[str] = set()

    def announce(name: str) -> None:
        if name not in announced:
            announced.add(name)
            cells = [(arm, seed) for arm, seed in todo if arm.name == name]
            time = _length(expected_time(experiment, cells, jobs, folder))
            say(f"{name}: {len(cells)} {'run' if len(cells) == 1 else 'runs'}, {time}")

    return announce


def _origin() -> dict[str, Any]:
    """Where new cells come from, but for the machine, which the cell's own process knows."""
    return {"commit": commit(), "environment": environment(), "recorded": date.today().isoformat()}


def execute(
    todo: list[tuple[Arm, int]], jobs: int, announce: Callable[[str], None], executor: Executor | None = None
) -> Iterator[Cell]:
    """Run cells, at most ``jobs`` at a time, and yield each as it is finished."""
    if not todo:
        return
    waiting, running = list(reversed(todo)), {}
    with contextlib.nullcontext(executor) if executor else _workers(min(jobs, len(todo))) as pool:
        while waiting or running:
            while waiting and len(running) < jobs:
                arm, seed = waiting.pop()
                announce(arm.name)
                running[pool.submit(run_cell, arm, seed)] = arm.name, seed
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield _finished(future, *running.pop(future))


def _finished(future: Future, arm: str, seed: int) -> Cell:
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


def run_cell(arm: Arm, seed: int) -> Cell:
    """Measure one cell and bring it into the form that is kept."""
    started = time.monotonic()
    record = arm.run(seed)
    took = {"seconds": time.monotonic() - started}
    return packed({"arm": arm.name, "seed": seed, **took, **record, "machine": machine(threads=THREADS)})


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes with one thread each, which never outlives the block, nor the parent's death."""
    before = set(multiprocessing.active_children())
    threads = {f"{name}_NUM_THREADS": THREADS for name in ("OMP", "MKL", "OPENBLAS")}
    with variables(**threads, OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME=0):  # who waits leaves the core to the others
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_prepare_worker)
        try:
            yield pool
        except BaseException:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            with contextlib.suppress(RuntimeError):  # interrupted when the pool's own thread had not begun
                pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


@contextlib.contextmanager
def variables(**values: object) -> Iterator[None]:
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
