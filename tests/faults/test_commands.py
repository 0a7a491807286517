"""Ctrl-C of every command that works for long: exit code 130 and one sentence, which says what is kept and no more.

A command runs in a forked process, for which everything is imported already, and gets a real SIGINT: at random times,
or at a step that is named.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pkgutil
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import pytest

from tests.faults.writers import KILLS, Child, Ended, emptied, left_in, run
from tests.worlds import tiny_experiment
from thesis_kit.cli import ending
from thesis_kit.cli.main import main
from thesis_kit.ledger import runner
from thesis_kit.zookeeping.recipe import Recipe
from thesis_kit.zookeeping.recipes import RECIPES

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")

_PARENT = os.getpid()
_TIMED = ("report.json", "sheet.json", "digits-tiny.json", "natural.jsonl", "free-8.jsonl",
          "rules.jsonl", "reproduced.jsonl", "state.ckpt")  # fmt: skip
RECIPE = Recipe(title="A tiny network for [digits].", data="digits", architecture="small_cnn", options={"width": 4},
                method="natural", updates=60, lr=0.2, eps=(0.1,))  # fmt: skip
_CERTIFY = "certify cnn-digits-natural --data digits --sigma 1/4 --n0 10 --n 100 --images 10"
_SHADOW = "attack shadow cnn-digits-natural --data digits --sigma 1/4 --n0 10 --n 50 --images 3 --steps 2 --draws 2 "
_INVERT = "invert --model resnet-scenes-a-natural --classes 0 --size 16 --steps 3 --copies 1 --sheet sheet.png"
_REPORT = "attack report cnn-digits-natural --data digits --eps 0.1 --images 4 --steps 10 --restarts 1 --queries 20"


@dataclass(frozen=True)
class Command:
    """A command; ``kept`` are the files that its work may leave on the way, ``files`` those at its end."""

    words: str
    files: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    before: str | None = None  # a command that has to be done first


_RUN = "claims run free-robust --folder results"
_RECORDED = ("results/defenses/digits/free-8.jsonl", "results/defenses/digits/natural.jsonl",
             "results/defenses/rules.jsonl")  # fmt: skip
COMMANDS = {
    "certify": Command(_CERTIFY),
    "certify --out": Command(f"{_CERTIFY} --out run.jsonl", ("run.jsonl",), ("run.jsonl.shares",)),
    "shadow --save": Command(f"{_SHADOW} --save drawn", tuple(f"drawn/{i:05d}.png" for i in range(3)), ("drawn",)),
    "report --out": Command(f"{_REPORT} --out report.json", ("report.json",)),
    "invert": Command(_INVERT, ("sheet.json", "sheet.png")),
    "invert --resume": Command(f"{_INVERT} --resume state.ckpt", ("sheet.json", "sheet.png", "state.ckpt")),
    "zoo train": Command("zoo train digits-tiny --folder zoo", ("zoo/digits-tiny.json", "zoo/digits-tiny.safetensors"),
                         ("checkpoints",)),
    "claims run": Command(_RUN, _RECORDED, _RECORDED),
    "claims verify": Command("claims verify free-robust --all --folder results",
                             (*_RECORDED, "results/defenses/reproduced.jsonl"), ("results",), before=_RUN),
}  # fmt: skip


@contextlib.contextmanager
def _small():
    """A zoo of one recipe, and a ledger of one experiment whose cells are measured in forked processes."""
    experiment = tiny_experiment.experiment(seeds=3, rest=0.05)

    @contextlib.contextmanager
    def workers(jobs):
        with ProcessPoolExecutor(jobs, get_context("fork"), initializer=runner._prepare_worker) as pool:
            yield pool

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(RECIPES, {"digits-tiny": RECIPE}))
        for place, value in {
            "thesis_kit.zookeeping.making.CHECKPOINTS": Path("checkpoints"),
            "thesis_kit.zookeeping.making.CHECKPOINT_SECONDS": 0.0,
            "thesis_kit.ledger.registry.find": lambda chapter, arena: experiment,
            "thesis_kit.ledger.results.experiments": lambda chapter: {"digits": experiment},
            "thesis_kit.ledger.runner._workers": workers,
        }.items():
            stack.enter_context(mock.patch(place, value))
        yield


def called(words: str, folder: Path) -> str:
    """A command in a folder: its exit code, and what it says on both streams.

    What interrupts it arrives while the command runs: it waits until then, and after that it is too late.
    """
    said, errors, here = io.StringIO(), io.StringIO(), Path.cwd()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.chdir(folder)
    try:
        with (
            _small(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(errors),
            mock.patch.object(sys, "argv", ["thesis-kit", *words.split()]),
            mock.patch.object(ending, "run", partial(_interruptible, ending.run)),
            pytest.raises(SystemExit) as exited,
        ):
            main()
    finally:
        os.chdir(here)
        if os.getpid() == _PARENT:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return json.dumps([exited.value.code, said.getvalue(), errors.getvalue()])


def _interruptible(run: Callable[[list[str]], int], words: list[str]) -> int:
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return run(words)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def interrupted_at(step: str, work: Callable[[], str]) -> str:
    """The work, in a process that gets SIGINT as soon as it is at a step, by the dotted name of a function."""
    owner, _, name = step.rpartition(".")
    owner = pkgutil.resolve_name(owner)
    real = getattr(owner, name)

    def stopped(*args, **knobs):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **knobs)

    with mock.patch.object(owner, name, stopped):
        return work()


@cache
def _unbroken(name: str) -> tuple[dict[str, bytes], float]:
    """What a command leaves, and how long it takes, done once here so that every fork has all that it imports."""
    with tempfile.TemporaryDirectory() as folder:
        prepared(name, Path(folder))
        began = time.monotonic()
        assert json.loads(called(COMMANDS[name].words, Path(folder)))[0] == 0
        assert left_in(Path(folder)) == sorted(COMMANDS[name].files)
        return contents(Path(folder)), (time.monotonic() - began) / 2


def prepared(name: str, folder: Path) -> None:
    emptied(folder)
    if COMMANDS[name].before:
        assert json.loads(called(COMMANDS[name].before, folder))[0] == 0


def contents(folder: Path) -> dict[str, bytes]:
    """Files by name, but for what a clock has said."""
    return {file: b"" if file.endswith(_TIMED) else (folder / file).read_bytes() for file in left_in(folder)}


def finished(ended: Ended) -> bool:
    assert ended.how == "done", ended
    code, _, errors = json.loads(ended.said)
    assert (code, errors) == (0, ""), errors
    return True


def sentence(ended: Ended) -> str:
    """What an interrupted command says; between two of its sentences no more than that it has stopped."""
    assert ended.how == "done", ended
    code, said, errors = json.loads(ended.said)
    assert code == 130, errors
    assert "Traceback" not in said
    if errors == "stopped\n":
        return ""
    assert errors.startswith("stopped; ")
    assert errors.count("\n") == 1
    return errors.removeprefix("stopped; ").rstrip()


def check_kept(said: str, name: str, before: list[str], folder: Path) -> None:
    """What is said to be kept is there, and where nothing is, nothing is there."""
    places = {file.partition("/")[0] for file in (*COMMANDS[name].files, *COMMANDS[name].kept)}
    named = [word for word in map(_bare, said.split()) if word.partition("/")[0] in places]
    for place in named:
        assert (folder / place).exists(), said
    if said.startswith("nothing"):
        assert set(left_in(folder)) - {"results/defenses/rules.jsonl"} <= set(before), said
    elif said and name == "claims verify":
        reproduced = "results/defenses/reproduced.jsonl"
        assert ("noted" in said) == (reproduced in left_in(folder)) or reproduced in before
    elif said:
        assert named or "is made" in said, said
    assert not [file for file in left_in(folder) if file.endswith((".part", ".lock"))]


def _bare(word: str) -> str:
    return word.strip(":,;")


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.files])
def test_interrupted_at_any_time_it_says_what_is_kept_and_no_more(name, tmp_path):
    (whole, longest), stopped, seed = _unbroken(name), 0, random.randrange(10**6)
    chance, work = random.Random(seed), partial(called, COMMANDS[name].words, tmp_path)
    prepared(name, tmp_path)
    while stopped < max(1, KILLS // 3):
        before, child = left_in(tmp_path), Child(work, lets=True)
        time.sleep(chance.uniform(0, longest))
        child.kill(signal.SIGINT)
        ended = child.end()
        if ended.how == "done" and json.loads(ended.said)[0] == 0:
            longest *= 0.7
            prepared(name, tmp_path)
        else:
            stopped += 1
            check_kept(sentence(ended), name, before, tmp_path)
    assert finished(run(work)), f"seed {seed}"
    assert contents(tmp_path) == whole, f"seed {seed}"


@pytest.mark.parametrize(
    ("name", "step", "said"),
    [
        ("certify", "cli.certificates._print_certified", "nothing was kept: with --out FILE every finished image is, "),
        ("certify", "cli.streams.flush", "the command had finished, but for what it prints"),
        ("certify --out", "cli.certificates.subject_of", "nothing was kept yet, and the same command begins anew"),
        ("certify --out", "cli.certificates._print_certified", "finished images are kept in or beside run.jsonl, and "),
        ("shadow --save", "cli.certificates._print_spoofed", "the pictures made so far are in drawn, and no numbers "),
        ("report --out", "cli.report.subject_of", "nothing was kept: a diagnosis is made in one piece, and "),
        ("report --out", "cli.report.console.print", "the diagnosis is in report.json"),
        ("invert --resume", "cli.inversion.shape", "nothing was kept yet, and the same command begins anew"),
        ("invert --resume", "cli.inversion._record", "the state is kept in state.ckpt, and the same command goes on "),
        ("invert", "cli.inversion._lines", "sheet.png is drawn"),
        ("zoo train", "zookeeping.making._expected_seconds", "nothing was changed"),
        ("zoo train", "zookeeping.making.measure_scores", "checkpoints/digits-tiny/"),
        ("zoo train", "zookeeping.making._forget", "digits-tiny is made, its weights are in zoo/digits-tiny.safe"),
        ("claims run", "ledger.runner.cells_left", "nothing was measured yet"),
        ("claims run", "ledger.judging.judge_claim", "finished runs are kept in results, and the same command goes on"),
        ("claims verify", "ledger.reproducing.choose_cells", "no recording was changed"),
        ("claims verify", "cli.claims.out.print", "no recording was changed"),
    ],
)
def test_interrupted_at_a_step_it_says_what_is_kept_by_then(name, step, said, tmp_path):
    whole, _ = _unbroken(name)
    prepared(name, tmp_path)
    before, work = left_in(tmp_path), partial(called, COMMANDS[name].words, tmp_path)
    told = sentence(run(partial(interrupted_at, f"thesis_kit.{step}", work)))
    assert told.startswith(said)
    if step != "cli.streams.flush":
        check_kept(told, name, before, tmp_path)
    if not said.startswith("nothing was kept"):
        assert finished(run(work))
        assert contents(tmp_path) == whole


def test_a_page_that_is_written_is_said_to_be(tmp_path):
    work = partial(called, "claims status --write --page status.md --folder results", tmp_path)
    for step, said in {"out.print": "status.md is written", "renewal": "nothing was changed"}.items():
        assert sentence(run(partial(interrupted_at, f"thesis_kit.cli.pages.{step}", work))) == said
    assert left_in(tmp_path) == ["status.md"]


@pytest.mark.parametrize("words", [_CERTIFY, _REPORT, _INVERT, "zoo train digits-natural", _RUN, "claims verify"])
def test_interrupted_while_it_imports_it_is_quiet(words, tmp_path):
    """Here a new interpreter is needed; one that has not come far."""
    code = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("torch", "numpy", "yaml"):
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
from thesis_kit.cli import main
main()"""
    command = [sys.executable, "-c", code, *words.split()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith(("stopped; nothing was ", "stopped; no recording was changed"))
    assert done.stderr.count("\n") == 1
    assert left_in(tmp_path) == []
