"""README's promises: its lines and commands run as printed, its picture shows the present results, its paths exist."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.book.test_environment import PROJECT
from thesis_kit.cli.ending import run
from thesis_kit.ledger.results import available, load_result
from tools.build_notebooks import ROOT
from tools.readme_picture import PICTURE

pytestmark = pytest.mark.book
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_run_as_printed(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert sum(bool(line.strip()) for line in block.splitlines()) <= 10
    exec(block, namespace := {})
    printed = capsys.readouterr().out
    assert "1000 updates, 1000 backward passes" in printed
    assert all(attack in printed for attack in ("PGD", "APGD-CE", "Square", "worst case"))
    assert namespace["result"].robust_accuracy > 0.5


COMMANDS = [shlex.split(line, comments=True) for line in re.findall(r"^thesis-kit .*", README, re.MULTILINE)]
CHEAPER = {  # options that leave a command what it is and make it short
    "certify": ["--images", "2", "--n", "100"],
    "attack": ["--images", "4", "--steps", "10", "--queries", "5", "--restarts", "1"],
    "invert": ["--steps", "1", "--copies", "1"],
    "visualize": ["--steps", "1", "--images", "12"],
    "sonify": ["--steps", "1"],
    "listen": ["--steps", "1"],
}
SAID = {
    "claims list": "free-robust", "claims run": "free-robust (digits): 0 of ", "zoo list": "cnn-digits-squeezed",
    "attack report": "worst case", "certify resnet-scenes-a-noise-0.25": "records in run.jsonl",
    "invert --model": "shapes.png and shapes.json", "invert --clip": "star.png and star.json",
    "visualize --model": "units.png and units.json",
    "sonify --model": "2 sounds, spectra.png and ", "listen me.wav": " sounds, spectra.png and ",
}  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(words[1:3]) for words in COMMANDS])
def test_commands_run_as_printed_from_an_empty_folder(words, tmp_path, monkeypatch, capsys):
    """Options are added that make a command cheap; the claim is not measured to its end, but it is not refused."""

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    if "me.wav" in words:
        soundfile.write("me.wav", 0.3 * np.sin(np.arange(8000) * 0.1), 16_000)
    monkeypatch.setattr("thesis_kit.ledger.runner.execute", stop)
    code = run([*words[1:], *CHEAPER.get(words[1], [])])
    printed = capsys.readouterr()
    assert SAID[" ".join(words[1:3])] in printed.out
    measured = words[1:3] == ["claims", "run"]
    assert (code, printed.err.startswith("stopped; ")) == ((130, True) if measured else (0, False)), printed.err


def test_every_command_of_the_shell_is_shown_and_none_that_there_is_not():
    assert {" ".join(words[1:3]) for words in COMMANDS} == set(SAID)
    assert all(command[0] == "thesis-kit" for command in COMMANDS)
    inline = set(re.findall(r"`thesis-kit ([^`]+)`", README))
    assert all(run([*command.split(), "--help"]) == 0 for command in inline)


def test_options_named_in_the_text_exist(capsys):
    helps = ""
    for command in ("certify", "invert", "attack report", "attack shadow", "claims run", "visualize", "sonify", ""):
        assert run([*command.split(), "--help"]) == 0
        helps += capsys.readouterr().out
    ours = re.sub(r"`pip install[^`]+`", "", README)
    assert set(re.findall(r"--[a-z][a-z-]+", ours)) <= set(re.findall(r"--[a-z][a-z-]+", helps))


def test_extras_are_those_of_the_project_and_bring_what_is_said():
    extras = PROJECT["optional-dependencies"]
    section = README.partition("## What to install")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`[a-z]+`(?:, )?)+) \| ([^|]+) \|", section, re.MULTILINE)
    named = [extra for names, _ in rows for extra in re.findall(r"`([a-z]+)`", names)]
    assert sorted(named) == sorted(extras)
    for names, brings in rows[:3]:
        (extra,) = re.findall(r"`([a-z]+)`", names)
        assert [re.split("[>=]", one)[0] for one in extras[extra]] == brings.strip().split(", ")
    core = re.search(r"model of your own: (.*?)\. Extras", section.replace("\n", " ")).group(1)
    said = {name.lower().replace("pytorch", "torch") for name in re.split(r", | and ", core)}
    assert said == {re.split("[>=]", one)[0] for one in PROJECT["dependencies"]}


@pytest.mark.skipif("defenses.digits" not in available(), reason="chapter 1 has no recorded results yet")
def test_the_picture_was_drawn_from_the_recorded_results():
    with Image.open(PICTURE) as image:
        assert image.text["results"] == load_result("defenses.digits").sha256, "run tools/readme_picture.py"


def test_paths_and_targets_exist():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= targets
