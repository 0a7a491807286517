"""Everything that writes, each as a small piece of work in a folder: begun, broken off in some way, and gone on with.

A piece of work is a function of its folder. It goes on where it was, and returns a text that is the same for the same
outcome. It is run in forked processes, which start in milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import nn

from thesis_kit import training
from thesis_kit.attacks import pgd
from thesis_kit.certification import Verification, certify
from thesis_kit.data import Part
from thesis_kit.evaluation import robust_accuracy
from thesis_kit.files import digest, read_document, settle, write_document, write_together
from thesis_kit.files.tensors import read_tensors, write_tensors
from thesis_kit.identity import tell
from thesis_kit.sweep import sweep
from thesis_kit.synthesis import Adam, Stage, cross_entropy, synthesize

KILLS = int(os.environ.get("TK_FAULTS", "3"))  # of each writer; `make faults` asks for more
ROUNDS = 8  # files that are written one after another


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)).eval()


@cache
def images() -> Part:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(40, 3, 4, 4, generator=random)
    return Part(x, network()(x).argmax(dim=1), torch.arange(40))


def trained(folder: Path) -> str:
    model, method = network(), training.Free(0.1, replays=2)
    knobs = {"updates": 40, "batch_size": 10, "lr": 0.05, "checkpoint": folder / "run.pt", "checkpoint_seconds": 0.0}
    report = training.train(model, images(), method, progress=False, **knobs)
    return digest([tell(dict(model.state_dict())), report.updates, report.passes.forward])


def synthesized(folder: Path) -> str:
    stages = [Stage(4, 12), Stage(4, 12)]
    found = synthesize(
        network(), cross_entropy([0, 1, 2]), stages=stages, optimizer=Adam(0.1), batch=2, progress=False,
        checkpoint=folder / "run.ckpt", checkpoint_seconds=0.0,
    )  # fmt: skip
    return digest([tell(found.images), tell(found.losses), found.passes.forward])


def slowly(i: int) -> dict[str, int]:
    time.sleep(0.003)
    return {"square": i * i}


def swept(folder: Path) -> str:
    found = sweep({f"item {i}": i for i in range(40)}, slowly, folder / "run.jsonl", progress=False)
    return digest(found)


def certified(folder: Path) -> str:
    x = images().x[:25]
    found = certify(network(), x, sigma=0.3, n0=20, n=300, alpha=0.01, out=folder / "run.jsonl", progress=False)
    return digest(found.record())


def attacked(folder: Path) -> str:
    attacks = {"weak": partial(pgd, eps=0.02, steps=4), "strong": partial(pgd, eps=0.04, steps=12)}
    found = robust_accuracy(network(), images(), attacks, batch_size=4, out=folder / "run.jsonl", progress=False)
    return digest([[one.survived.tolist(), one.attacked, one.passes.forward] for one in found.attacks])


def saved(folder: Path) -> str:
    """A value is saved again and again; what is there is always one of those that were saved."""
    path = folder / "value.json"
    for i in range(_read_saved(path), ROUNDS):
        Verification(torch.arange(400) <= i, 0.1, "ibp").save(path)
    return str(_read_saved(path))


def _read_saved(path: Path) -> int:
    return int(Verification.load(path).verified.sum()) if path.exists() else 0


def paired(folder: Path) -> str:
    """A picture and what is said about it, which are of one round always."""
    for i in range(_read_pair(folder), ROUNDS):
        picture = bytes([i]) * 3000
        write_together({folder / "a.png": picture, folder / "a.json": json.dumps({"round": i + 1}).encode()})
    return str(_read_pair(folder))


def _read_pair(folder: Path) -> int:
    settle(folder / "a.png", folder / "a.json")
    picture, about = folder / "a.png", folder / "a.json"
    if not picture.exists():
        assert not about.exists(), "a JSON without its picture"
        return 0
    number = json.loads(about.read_bytes())["round"]
    assert picture.read_bytes() == bytes([number - 1]) * 3000, "a picture beside another one's JSON"
    return number


def kept(folder: Path) -> str:
    """Tensors and a document, each written whole."""
    for i in range(_read_kept(folder), ROUNDS):
        write_tensors(folder / "weights.pt", {"weights": torch.full((500,), float(i + 1))})
        write_document(folder / "about.json", "round", {"round": i + 1})
    return str(_read_kept(folder))


def _read_kept(folder: Path) -> int:
    if not (folder / "weights.pt").exists():
        return 0
    weights = read_tensors(folder / "weights.pt")["weights"]
    assert len(weights.unique()) == 1
    if not (folder / "about.json").exists():
        assert weights[0] == 1
        return 0
    number = read_document(folder / "about.json", "round")["round"]
    assert int(weights[0]) in (number, number + 1)
    return number


@dataclass(frozen=True)
class Writer:
    """A piece of work; ``files`` are those that it leaves, and ``resumes`` tells that it goes on inside one file."""

    work: Callable[[Path], str]
    files: tuple[str, ...]
    resumes: bool = True


WRITERS = {
    "training": Writer(trained, ("run.pt",)),
    "synthesis": Writer(synthesized, ("run.ckpt",)),
    "sweep": Writer(swept, ("run.jsonl",)),
    "certificates": Writer(certified, ("run.jsonl",)),
    "robust accuracy": Writer(attacked, ("run.jsonl",)),
    "value": Writer(saved, ("value.json",), resumes=False),
    "pair": Writer(paired, ("a.json", "a.png"), resumes=False),
    "tensors": Writer(kept, ("about.json", "weights.pt"), resumes=False),
}


@dataclass
class Ended:
    """How a process ended: "done" with its answer, "killed", "stopped" by Ctrl-C or "failed", with what it said."""

    how: str
    said: str


class Child:
    """A forked process at some work; its folder of words lies beside the folder that it works in.

    An interruption waits until the work has begun, or, where the work ``lets`` it in, until it does.
    """

    def __init__(self, work: Callable[[], str], lets: bool = False):
        read, write = os.pipe()
        self._words = read
        self.began = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self.pid = os.fork()
        if self.pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            os.close(write)
            return
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.close(read)
            code, said = _ended(work, lets)
            os.write(write, said.encode()[:60_000])
        finally:
            os._exit(code)

    def kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def is_running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def end(self) -> Ended:
        with open(self._words, "rb") as words:
            said = words.read().decode()
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            return Ended("killed", said)
        return Ended({0: "done", 130: "stopped", 3: "failed"}.get(os.WEXITSTATUS(status), "crashed"), said)


def _ended(work: Callable[[], str], lets: bool) -> tuple[int, str]:
    try:
        if not lets:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        said = work()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # too late: what comes now interrupts the telling, not the work
        return 0, said
    except KeyboardInterrupt as stop:
        return 130, "; ".join(getattr(stop, "__notes__", []))
    except Exception as error:
        return 3, f"{type(error).__name__}: {error}"


def run(work: Callable[[], str]) -> Ended:
    return Child(work).end()


def left_in(folder: Path) -> list[str]:
    """Files by their paths; hidden ones too. A folder may vanish meanwhile."""
    return sorted(os.path.relpath(os.path.join(where, file), folder) for where, _, files in os.walk(folder)
                  for file in files)  # fmt: skip


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


_STEPS = ("fsync", "replace", "unlink", "open")  # what a process does on disk


@contextlib.contextmanager
def watched(before: Callable[[], None], after: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Something happens before and after each step on disk inside the block."""

    def step(real, *args, **knobs):
        before()
        try:
            return real(*args, **knobs)
        finally:
            after()

    real = {name: getattr(os, name) for name in _STEPS}
    try:
        for name in _STEPS:
            setattr(os, name, partial(step, real[name]))
        yield
    finally:
        for name in _STEPS:
            setattr(os, name, real[name])


def dying(call: int, work: Callable[[], str]) -> str:
    """The work, in a process that is killed at its n-th step on disk: n is half of call, and odd calls die after it."""
    left, late = [call // 2], call % 2

    def die(when: int) -> None:
        if when == late and left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before() -> None:
        left[0] -= 1
        die(0)

    with watched(before, partial(die, 1)):
        return work()


@cache
def _unbroken(name: str) -> tuple[str, float, int]:
    """Done once here, so that what is imported on the way is there for every fork, and once more to see how long."""
    steps = []
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        with watched(lambda: steps.append(1)):
            said = WRITERS[name].work(Path(here))
        child = Child(partial(WRITERS[name].work, Path(there)))
        ended = child.end()
        assert (ended.how, ended.said) == ("done", said), ended
        return said, time.monotonic() - child.began, len(steps)


def outcome(name: str) -> str:
    """What the work comes to if nothing happens to it."""
    return _unbroken(name)[0]


def seconds(name: str) -> float:
    """How long that takes."""
    return _unbroken(name)[1]


def steps(name: str) -> int:
    """How many steps on disk it takes."""
    return _unbroken(name)[2]


def started(folder: Path, child: Child) -> None:
    """Wait until a child has written something."""
    while child.is_running() and not any(not file.startswith(".") for file in left_in(folder)):
        time.sleep(0.0005)


def begun(name: str, folder: Path, share: float = 0.5) -> None:
    """Leave work in a folder that a kill broke off on its way, after a share of what it does on disk."""
    ended = run(partial(dying, 2 * round(steps(name) * share), partial(WRITERS[name].work, folder)))
    assert ended.how == "killed", ended
    assert any(not file.rpartition("/")[2].startswith(".") for file in left_in(folder)), f"{name} left nothing"
