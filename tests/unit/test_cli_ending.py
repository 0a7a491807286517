"""How the command line ends: sentences and exit codes, whatever the error, the stream's encoding, or Ctrl-C."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pytest

from thesis_kit import __version__, cli
from thesis_kit.checks import UnknownName
from thesis_kit.cli import streams
from thesis_kit.cli.ending import run, sentence
from thesis_kit.cli.stopping import Stopped, kept
from thesis_kit.cli.subjects import number
from thesis_kit.evaluation import MaskingReport

COMMANDS = [
    [], ["certify"], ["invert"], ["attack"], ["attack", "shadow"], ["attack", "report"], ["claims"], ["claims", "list"],
    ["claims", "show"], ["claims", "ledger"], ["claims", "run"], ["claims", "verify"], ["zoo"], ["zoo", "list"],
    ["zoo", "show"], ["zoo", "train"], ["zoo", "check"], ["zoo", "page"],
]  # fmt: skip
CERTIFY = ["certify", "cnn-digits-natural", "--data", "digits", "--sigma", "1/4"]
# Ctrl-C works in the child even where it was started with SIGINT ignored, as by nohup.
CHILD = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "


def start(*words, before: str = "", **options) -> subprocess.Popen:
    """The command line in a process of its own."""
    code = f"{CHILD}{before}\nfrom thesis_kit.cli import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def finish(process: subprocess.Popen) -> tuple[int, bytes, bytes]:
    said, errors = process.communicate(timeout=100)
    return process.returncode, said, errors


def shell(*words, **options) -> tuple[int, bytes, bytes]:
    return finish(start(*words, **options))


# Help, version


def test_help_of_every_command_imports_nothing_heavy_and_prints_on_any_terminal():
    code = f"""
import sys
from thesis_kit.cli import main
for words in {COMMANDS}:
    sys.argv = ["thesis-kit", *words, "--help"]
    try: main()
    except SystemExit as end: assert end.code == 0, words
heavy = {{"torch", "numpy", "scipy", "torchvision", "matplotlib", "timm", "yaml"}} & set(sys.modules)
assert not heavy, heavy
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ") == len(COMMANDS)


def test_help_comes_within_a_second():
    begun = time.perf_counter()
    assert shell("--help")[0] == 0
    alone = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import typer, rich.console"], check=True)
    libraries = time.perf_counter() - alone
    assert alone - begun < 1 + 2 * libraries  # a busy machine slows both


def test_the_version_is_said():
    code, said, _ = shell("--version")
    assert (code, said.decode().strip()) == (0, f"thesis-kit {__version__}")


@pytest.mark.parametrize("words", [[], ["claims"], ["zoo"], ["attack"]])
def test_without_a_command_the_help_is_shown(words, capsys):
    assert run(words) == 2
    assert "Commands:" in capsys.readouterr().err


# Errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["certify", "--frob"], "thesis-kit certify --help` shows what it takes)"),
        (["frob"], "thesis-kit --help` shows what it takes)"),
        (["certify", "x", "--data", "digits"], "Missing option '--sigma' (`"),
        ([*CERTIFY[:-1], "8/0"], "'8/0' is not a number: write it as 0.03 or 8/255 (`"),
        ([*CERTIFY, "--images", "0"], "Invalid value for '--images'"),
        (["zoo", "show", "[/nowhere] :smile:"], "unknown zoo model '[/nowhere] :smile:': choose one of "),
        (["claims", "show", "xyzzy"], "more: see `thesis-kit claims list`"),
        (["certify", "xyzzy", *CERTIFY[2:]], "more: see `thesis-kit zoo list` and timm.list_models()"),
        (CERTIFY[:1] + CERTIFY[2:], "there is no model: name one that `thesis-kit zoo list` shows or timm knows"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["thesis-kit", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert said in error
    assert error.count("\n") == 1
    assert len(error) < 400


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnknownName("unknown x 'y': did you mean z?"), "unknown x 'y': did you mean z?"),
        (ValueError("two\n   lines"), "two lines"),
        (FileNotFoundError(2, "No such file or directory", "a.pt"), "a.pt: No such file or directory"),
        (OSError(28, "No space left on device"), "the output: No space left on device"),
        (urllib.error.URLError("no route"), "<urlopen error no route>"),
        (KeyError("fc.weight"), "KeyError: 'fc.weight' (--debug shows where it came from)"),
        (RuntimeError("operator does not exist"), "RuntimeError: operator does not exist (--debug shows where it came"),
        (AssertionError(), "AssertionError (--debug shows where it came from)"),
        (ModuleNotFoundError("No module", name="sklearn.svm"), "the package sklearn is not installed and is needed"),
        (ValueError("x" * 10_000), f"{'x' * 600} …"),
    ],
)
def test_every_kind_of_error_has_its_sentence(error, said, monkeypatch, capsys):
    assert sentence(error).startswith(said)
    monkeypatch.setattr("thesis_kit.cli.ending._called", lambda arguments: raising(error))
    assert run(["claims", "list"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(type(error)):
        run(["claims", "list", "--debug"])


def raising(error: BaseException):
    raise error


def test_a_missing_optional_package_is_a_sentence_that_names_its_extra(tmp_path):
    block = "sys.modules['timm'] = None; "
    code, _, errors = shell("certify", "resnet18", *CERTIFY[2:], before=block)
    assert code == 2
    assert errors.decode().startswith("the package timm is not installed and is needed here: install it, or thesis_kit")
    assert '".[timm]"' in errors.decode()


# What is printed


def test_output_is_printed_on_a_stream_that_cannot_encode_it():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    code, said, errors = shell(*CERTIFY, "--images", "1", "--n", "20", "--n0", "5", env=environment)
    assert (code, errors) == (0, b"")
    assert b"(sigma = 0.25, n0 = 5, n = 20, alpha = 0.001)" in said


@pytest.mark.parametrize(
    ("encoding", "text", "printed"),
    [
        ("ascii", "✓ 3 × ε ≤ ‖δ‖₂ …", b"+ 3 x eps <= |delta|2 ..."),
        ("cp1252", "✓ 3 × ε", "+ 3 × eps".encode("cp1252")),
        ("ascii", "caf\u00e9 \u8a9e \udce9", b"cafe ? ?"),
        ("utf-8", "✓ \udce9", "✓ ?".encode()),
    ],
)
def test_what_an_encoding_lacks_is_written_in_plain_letters(encoding, text, printed, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    streams.tolerate()
    print(text, end="", flush=True)
    assert stream.buffer.getvalue() == printed


def test_a_full_disk_and_a_reader_who_has_seen_enough(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        process = subprocess.run([sys.executable, "-m", "thesis_kit.cli", "--version"], stdout=full, stderr=-1)
    assert (process.returncode, process.stderr) == (2, b"the output: No space left on device\n")
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run([sys.executable, "-m", "thesis_kit.cli", "--version"], stdout=writing, stderr=-1)
    os.close(writing)
    assert (process.returncode, process.stderr) == (1, b"")


def test_paths_that_look_like_markup_are_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = "[/foo] :smile:.jsonl"
    assert run([*CERTIFY, "--images", "1", "--n", "20", "--n0", "5", "--out", path]) == 0
    assert f"records in {path}\n" in capsys.readouterr().out.replace("\\", "/")
    assert Path(path).exists()


def test_files_are_written_before_anything_is_printed(tmp_path, monkeypatch):
    class Reader(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    path, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    report = MaskingReport.__new__(MaskingReport)
    monkeypatch.setattr(MaskingReport, "__str__", lambda self: "robust")
    monkeypatch.setattr(MaskingReport, "record", lambda self: {"findings": {}})
    monkeypatch.setattr("thesis_kit.evaluation.masking_report", lambda *a, **k: report)
    monkeypatch.setattr(sys, "stdout", Reader())
    assert run(["attack", "report", "cnn-digits-natural", "--data", "digits", "--eps", "0.1", "--out", str(path)]) == 2
    words = ["invert", "--model", "resnet-scenes-a-natural", "--classes", "0", "--size", "16"]
    assert run([*words, "--steps", "1", "--copies", "1", "--sheet", str(sheet)]) == 2
    assert path.exists()
    assert sheet.exists()
    assert sheet.with_suffix(".json").exists()


# Numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), ("0.03", 0.03), ("1e-3", 0.001), (" 8 / 255 ", 8 / 255), ("-1/2", -0.5), (0.25, 0.25)],
)
def test_numbers_may_be_fractions(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "8/", "/255", "8/0", "1/2/3", "eight", "8\\255"])
def test_what_is_no_number_is_said(text):
    with pytest.raises(Exception, match=r"is not a number: write it as 0\.03 or 8/255"):
        number(text)


def test_every_option_that_takes_a_real_number_takes_fractions(capsys):
    for words, options in {
        ("certify",): ["sigma", "alpha"],
        ("attack", "shadow"): ["sigma", "alpha"],
        ("attack", "report"): ["eps"],
        ("invert",): ["lr", "color", "tv"],
    }.items():
        assert run([*words, "--help"]) == 0
        said = capsys.readouterr().out
        assert all(f"--{option} NUMBER" in said for option in options)
        assert "<float>" not in said


# Ctrl-C


def test_whatever_is_interrupted_says_what_it_kept_or_its_command_does():
    with pytest.raises(Stopped, match=r"^all is kept$"), kept("all is kept"):
        raise KeyboardInterrupt
    with pytest.raises(Stopped, match=r"^asked late$"), kept(lambda: "asked late"):
        raise KeyboardInterrupt
    with pytest.raises(Stopped, match=r"^12 updates are kept$"), kept("all is kept"):
        raise KeyboardInterrupt("12 updates are kept")
    error = KeyboardInterrupt()
    error.__notes__ = ["state in x.pt"]
    with pytest.raises(Stopped, match=r"^state in x\.pt$"), kept("all is kept"):
        raise error
    loading = ImportError("an extension module failed to load")
    loading.__cause__ = KeyboardInterrupt()
    with pytest.raises(Stopped, match=r"^all is kept$"), kept("all is kept"):
        raise loading
    with pytest.raises(ImportError, match="another"), kept("all is kept"):
        raise ImportError("another")


@pytest.mark.parametrize("words", [CERTIFY, ["claims", "list"], ["zoo", "list"]])
def test_ctrl_c_during_imports_is_quiet(words):
    finder = """
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder)"""
    code, said, errors = shell(*words, before=finder)
    assert (code, said) == (130, b"")
    assert errors.decode().startswith("stopped; nothing was ")
    assert errors.count(b"\n") == 1


def test_ctrl_c_before_anything_else_is_quiet():
    finder = """
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder)"""
    assert shell("claims", "list", before=finder) == (130, b"", b"stopped; nothing was changed\n")


def test_ctrl_c_in_the_middle_keeps_what_is_done_and_says_how_to_go_on(tmp_path):
    path = tmp_path / "run.jsonl"
    words = [*CERTIFY, "--images", "300", "--n", "2000", "--out", path]
    process = start(*words)
    share = tmp_path / "run.jsonl.shares" / "0-of-1"
    deadline = time.monotonic() + 90
    while not (share.exists() and share.read_bytes().count(b"\n") > 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, _, errors = finish(process)
    assert code == 130
    assert errors.decode().splitlines()[-1].startswith("stopped; ")
    assert "Traceback" not in errors.decode()
    assert "goes on from there" in errors.decode()
    assert share.read_bytes().count(b"\n") > 2  # the settings, and an item or more
