"""The zoo command: what it prints, what it makes, and how it fails."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thesis_kit import cli
from thesis_kit.models import zoo
from thesis_kit.show.zoo_page import zoo_page
from thesis_kit.zookeeping import making
from thesis_kit.zookeeping.recipe import Recipe
from thesis_kit.zookeeping.recipes import RECIPES
from thesis_kit.zookeeping.wording import percent

NAME = "digits-linear"
RECIPE = Recipe(title="A tiny network for [digits].", data="digits", architecture="small_cnn", options={"width": 4},
                method="natural", updates=40, lr=0.2, eps=(0.1,))  # fmt: skip
runner = CliRunner()


def call(*words, folder=None):
    where = ["--folder", str(folder)] if folder is not None else []
    return runner.invoke(cli.app, ["zoo", *map(str, words), *where], catch_exceptions=False)


@pytest.fixture(autouse=True)
def recipes(monkeypatch, tmp_path):
    for name in list(RECIPES):
        monkeypatch.delitem(RECIPES, name)
    monkeypatch.setitem(RECIPES, NAME, RECIPE)
    monkeypatch.setattr(making, "CHECKPOINTS", tmp_path / "checkpoints")
    return RECIPES


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with one member, made by the command; what it printed lies beside it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(RECIPES, NAME, RECIPE)
        patched.setattr(making, "CHECKPOINTS", folder / "checkpoints")
        (folder / "said").write_text(call("train", NAME, folder=folder).output, encoding="utf-8")
    return folder


@pytest.fixture
def fails(monkeypatch, capsys):
    """Run the command as the shell would and return exit code and what went to stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["thesis-kit", "zoo", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr().err

    return run


def test_train_says_the_time_first_and_the_scores_last(trained):
    lines = (trained / "said").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"{NAME}: 40 updates of natural training on digits, about ")
    assert any(line.startswith(f"{NAME}: clean ") for line in lines)
    assert lines[-2].endswith(" in all")
    assert lines[-1] == f"in Python: thesis_kit.zoo.load({NAME!r}, folder={str(trained)!r})"
    assert zoo.names(folder=trained) == [NAME]


def test_train_again_needs_force(trained, monkeypatch):
    said = call("train", NAME, folder=trained).output.splitlines()
    assert said[0] == f"{NAME} is up to date; --force trains it again"
    monkeypatch.setattr(making, "_make", lambda plan, *_: zoo.entry(plan.name, folder=plan.folder))
    assert call("train", NAME, "--force", folder=trained).output.startswith("in Python: ")


def test_train_writes_into_the_package_only_if_it_is_asked_to(tmp_path, monkeypatch):
    folders = []
    monkeypatch.setattr(making, "make", lambda name, *, folder, **_: folders.append(folder))
    monkeypatch.chdir(tmp_path)
    call("train", NAME)
    call("train", NAME, "--package")
    assert folders == [Path("zoo"), None]


def test_list_shows_members_and_recipes(trained, recipes):
    recipes["digits-other"] = RECIPE
    said = call("list", folder=trained).output
    size = (trained / f"{NAME}.safetensors").stat().st_size
    clean = zoo.entry(NAME, folder=trained).scores["clean"].value
    for part in (f"{NAME} ", f"clean {100 * clean:.1f}%", "digits-other", "not trained yet", f"{size / 1e3:.0f} kB"):
        assert part in said
    assert said.splitlines()[-1] == f"weights in all: {size / 1e3:.0f} kB"


def test_list_tells_missing_weights_and_those_that_are_not_shipped(tmp_path, recipes):
    recipes[NAME] = replace(RECIPE, updates=2)
    recipes["digits-other"] = replace(RECIPE, updates=2, shipped=False)
    for name in recipes:
        making.make(name, folder=tmp_path)
        (tmp_path / zoo.entry(name, folder=tmp_path).file).unlink()
    lines = call("list", folder=tmp_path).output.splitlines()
    assert lines[1].rstrip().endswith("missing")
    assert lines[2].rstrip().endswith("not shipped")


def test_show_prints_one_member_in_full(trained):
    said = call("show", NAME, folder=trained).output
    about = zoo.entry(NAME, folder=trained)
    for part in (
        RECIPE.title,
        "natural on digits; 40 updates of 128 images",
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "40 forward and 40 backward passes",
        "robust@0.1:",
        about.sha256,
    ):
        assert part in said


def test_check_measures_again_and_is_content(trained):
    said = call("check", "--n", 200, folder=trained).output
    assert [line.split(":")[1].split()[0] for line in said.splitlines()] == ["clean", "robust@0.1"]
    assert "of 200 test images" in said
    assert call("check", NAME, "--n", 50, folder=trained).exit_code == 0


def test_check_fails_in_a_sentence(trained, fails, recipes):
    recipes[NAME] = replace(RECIPE, lr=0.1)
    code, said = fails("check", "--folder", trained)
    assert (code, said.startswith(f"{NAME} was trained by another recipe (lr changed)")) == (2, True)


def test_page_is_printed_written_and_checked(trained, tmp_path, fails):
    page = tmp_path / "zoo.md"
    printed = call("page", folder=trained).output
    assert printed == zoo_page(trained)
    code, said = fails("page", "--check", "--page", page, "--folder", trained)
    assert (code, "zoo.md is not what the zoo says now: run `thesis-kit zoo page" in said) == (2, True)
    assert "wrote zoo.md" in call("page", "--write", "--page", page, folder=trained).output
    assert page.read_text(encoding="utf-8") == printed
    assert "is up to date" in call("page", "--check", "--page", page, folder=trained).output


def test_the_page_says_what_a_reader_needs(trained):
    page, about = zoo_page(trained), zoo.entry(NAME, folder=trained)
    clean = about.scores["clean"]
    for needed in (
        f'name = "{NAME}"\nmodel = tk.zoo.load(name)',
        f"`make zoo NAME={NAME}`",
        f"The package holds 1 network in {about.bytes / 1e3:.0f} kB.",
        f'<a href="#zoo-{NAME}"><code>{NAME}</code></a>',
        f'<td role="cell" data-label="test accuracy">clean {100 * clean.value:.1f}%; robust@0.1 ',
        f"(zoo-{NAME})=",
        f"({100 * clean.low:.1f} to {100 * clean.high:.1f}) of 360 test images classified rightly",
        about.measured["date"],
        about.sha256[:16],
    ):
        assert needed in page
    assert "has no members" not in page


def test_the_page_of_an_empty_zoo_says_so(tmp_path):
    page = zoo_page(tmp_path)
    assert "The zoo has no members yet" in page
    assert "|" not in page


def test_ctrl_c_is_a_sentence(tmp_path, fails, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "_make", interrupted)
    code, said = fails("train", NAME, "--folder", tmp_path)
    assert (code, said) == (130, "stopped; nothing was changed\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "digit-linear"), f"unknown zoo model 'digit-linear': did you mean {NAME}"),
        (("check", "digit-linear"), f"unknown zoo model 'digit-linear': did you mean {NAME}"),
        (("train", "digit-linear"), f"unknown zoo recipe 'digit-linear': did you mean {NAME}"),
    ],
)
def test_a_wrong_name_is_one_red_sentence(trained, fails, words, sentence):
    code, said = fails(*words, "--folder", trained)
    assert code == 2
    assert said.startswith(sentence)
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.974, "97.4%"), (1.0, "100.0%"), (0.9995, "99.95%"), (0.9999, "99.99%"), (0.0, "0.0%"), (0.0002, "0.02%")],
)
def test_all_and_none_are_said_of_all_and_none_only(share, said):
    assert percent(share) == said
