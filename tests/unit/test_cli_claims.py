"""The claims command: what it prints, what it runs, and how it fails."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thesis_kit import cli
from thesis_kit.cli import claims as cli_claims
from thesis_kit.ledger import claims, reproducing
from thesis_kit.ledger import runner as runner_module
from thesis_kit.ledger.cells import arm_file
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.reproduced import read_reproduced
from thesis_kit.ledger.results import load_result

runner = CliRunner()
ARMS = {name: claims.titles(name) for name in claims.claim_files()[1]}


@pytest.fixture
def world(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "worlds"))
    import tiny_experiment

    return tiny_experiment


@pytest.fixture
def planned(world, monkeypatch):
    """The miniature experiment in place of chapter 1's."""
    monkeypatch.setattr("thesis_kit.ledger.results.experiments", lambda chapter: {"digits": world.experiment()})


@pytest.fixture
def folder(world, planned, tmp_path):
    """Result files in which one claim holds."""
    rates = {"natural": {"N": 0.95, "R": 0.3}, "free-8": {"N": 0.9, "R": 0.7}}
    scalars = {arm: {"passes_per_update": 1.0, "train_seconds": 2.0} for arm in rates}
    world.record(tmp_path, rates, scalars=scalars)
    return tmp_path


def call(*words, folder=None):
    where = ["--folder", str(folder)] if folder is not None else []
    return runner.invoke(cli.app, ["claims", *words, *where], catch_exceptions=False)


@pytest.fixture
def fails(monkeypatch, capsys):
    """Run the command as the shell would and return exit code and what went to stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["thesis-kit", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr().err

    return run


def test_list_shows_every_claim_and_its_verdict(folder):
    said = call("list", folder=folder).output
    assert "free-robust" in said
    assert "✓ holds" in said
    assert said.count("– not run") == len(catalog().claims) - 1


def test_show_prints_one_claim_in_full(folder):
    said = call("show", "free-robust", folder=folder).output
    source, asked = "Shafahi et al. 2019a", "the rule asks for at least 20"
    for part in ("Verdict", "Measured", "points, 95% interval", asked, source):
        assert part in said
    assert "free-strong" not in said
    assert "Made by:         free-8: thesis_kit.chapters.defenses.arms.train_and_judge" in said
    assert "free-strong" in call("show", folder=folder).output


def test_ledger_is_printed_written_and_checked(folder, tmp_path, fails):
    page = tmp_path / "ledger.md"
    printed = call("ledger", folder=folder).output
    assert printed.startswith("# The ledger")
    code, said = fails("claims", "ledger", "--check", "--page", page, "--folder", folder)
    assert (code, "run `thesis-kit claims ledger --write`" in said) == (2, True)
    assert "wrote ledger.md" in call("ledger", "--write", "--page", str(page), folder=folder).output
    assert page.read_text(encoding="utf-8") == printed
    assert "is up to date" in call("ledger", "--check", "--page", str(page), folder=folder).output
    code, said = fails("claims", "ledger", "--write", "--check", "--page", page, "--folder", folder)
    assert (code, "--write and --check are two things to do" in said) == (2, True)
    code, said = fails("claims", "ledger", "--write", "--page", tmp_path / "nowhere" / "ledger.md")
    assert (code, "there is no folder" in said) == (2, True)


def test_cover_gets_its_cards(folder, tmp_path, fails):
    page = tmp_path / "cover.md"
    code, said = fails("claims", "cover", "--write", "--page", page, "--folder", folder)
    assert (code, "there is no page" in said) == (2, True)
    page.write_text("# Cover\n<!-- cards: begin -->\n<!-- cards: end -->\n", encoding="utf-8")
    code, said = fails("claims", "cover", "--check", "--page", page, "--folder", folder)
    assert (code, "run `thesis-kit claims cover --write`" in said) == (2, True)
    assert "wrote cover.md" in call("cover", "--write", "--page", str(page), folder=folder).output
    assert "7. Sonification" in page.read_text(encoding="utf-8")
    assert "is up to date" in call("cover", "--check", "--page", str(page), folder=folder).output


@pytest.fixture
def tiny(monkeypatch, world):
    """The command's experiments replaced by the miniature one, run without processes."""
    experiment, execute = world.experiment(seeds=2), runner_module.execute
    monkeypatch.setattr("thesis_kit.ledger.registry.find", lambda chapter, arena: experiment)
    monkeypatch.setattr("thesis_kit.ledger.results.experiments", lambda chapter: {"digits": experiment})

    def in_process(todo, jobs, announce, executor=None):
        with ThreadPoolExecutor(jobs) as pool:
            yield from execute(todo, jobs, announce, pool)

    for module in ("runner", "reproducing"):
        monkeypatch.setattr(f"thesis_kit.ledger.{module}.execute", in_process)
    return experiment


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.jsonl")}


def test_run_says_the_expected_time_then_measures_then_judges(tiny, tmp_path):
    lines = call("run", "free-robust", folder=tmp_path).output.splitlines()
    assert lines[0] == "free-robust (digits): 0 of 4 runs recorded, 4 to go"
    assert lines[1] == "  free-8: 2 runs, for an unknown time"
    assert lines[2].startswith("  free-8, seed 0: 0 s (1 of 4, about ")
    assert lines[-2].startswith(("  ✓ holds", "  ? inconclusive", "  ↗ holds"))
    shown = f"`thesis-kit claims show free-robust --results {tmp_path}`"
    assert lines[-1] == f"recorded in {tmp_path}: {shown} shows it; the book's own results are as they were"
    assert load_result("defenses.digits", tmp_path).arms == ["natural", "free-8"]
    again = call("run", "free-robust", folder=tmp_path).output
    assert again.startswith("free-robust (digits): 4 of 4 runs recorded, nothing to do")


def test_results_go_to_a_folder_of_the_users_unless_the_package_is_asked_for(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("thesis_kit.ledger.cells.CHAPTERS", tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    assert "recorded in results: " in call("run", "free-robust").output
    where = tmp_path / "results" / "defenses"
    assert sorted(path.name for path in where.rglob("*.jsonl")) == ["free-8.jsonl", "natural.jsonl", "rules.jsonl"]
    assert not (tmp_path / "package").exists()
    assert "recorded in" not in call("run", "free-robust", "--package").output
    assert (tmp_path / "package" / "defenses" / "results" / "digits" / "natural.jsonl").exists()


def test_a_rule_is_fixed_before_it_is_measured_and_an_edit_is_noticed(tiny, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
        yield

    with monkeypatch.context() as patch:
        patch.setattr(runner_module, "execute", interrupted)
        runner.invoke(cli.app, ["claims", "run", "free-robust", "--results", str(tmp_path)])
    common, chapters = claims.claim_files()
    rule = b"R(free-8) - R(natural) >= 20 points"
    chapters["defenses"] = chapters["defenses"].replace(rule, b"R(free-8) >= 1 points")
    edited = claims.read_catalog(common, chapters, ARMS)
    monkeypatch.setattr("thesis_kit.ledger.claims.catalog", lambda: edited)
    monkeypatch.setattr("thesis_kit.ledger.judging.catalog", lambda: edited)
    call("run", "free-robust", folder=tmp_path)
    assert "then it was R(free-8) - R(natural) >= 20 points" in call("show", "free-robust", folder=tmp_path).output


def test_verify_notes_in_the_package_only_if_it_is_asked_to(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("thesis_kit.ledger.cells.CHAPTERS", tmp_path)
    call("run", "free-robust", "--package")
    before = contents(tmp_path)
    said = call("verify").output.splitlines()
    assert said[-2] == "  2 measured again: 2 the same bit by bit, 0 where their seeds lie"
    assert said[-1] == "  nothing was noted in the package's own results: --package does that"
    assert contents(tmp_path) == before
    assert "nothing was noted" not in call("verify", "--package").output
    assert [(one.arm, one.seed) for one in read_reproduced("defenses.digits")] == [("natural", 0), ("free-8", 1)]
    assert {name: text for name, text in contents(tmp_path).items() if name in before} == before


def test_restart_starts_each_arm_over_once(tiny, tmp_path):
    call("run", "free-robust", folder=tmp_path)
    said = call("run", "free-robust", "--restart", folder=tmp_path).output
    assert said.startswith("free-robust (digits): 0 of 4 runs recorded, 4 to go")
    campaign = cli_claims._Campaign(None, 1, True, tmp_path)
    campaign.measure("first", "defenses", "digits", ["natural", "free-8"])
    before = contents(tmp_path)
    campaign.measure("second", "defenses", "digits", ["free-8"])
    assert contents(tmp_path) == before


def test_a_claim_without_an_arena_says_why(tiny, tmp_path, monkeypatch):
    common, chapters = claims.claim_files()
    row = "  - id: transfer-inherits\n"
    text = chapters["defenses"].decode()
    chapters["defenses"] = text.replace(row, f"{row}    not_run: its world is not built yet\n")
    unmeasured = claims.read_catalog(common, chapters, ARMS)
    monkeypatch.setattr("thesis_kit.ledger.claims.catalog", lambda: unmeasured)
    said = call("run", "transfer-inherits", folder=tmp_path).output
    assert said == "transfer-inherits (scenes): not run: its world is not built yet\n"
    said = call("run", "free-strong", "--arena", "speech", folder=tmp_path).output
    assert said == "free-strong (speech): not run: it is measured in digits\n"


def test_an_arm_that_an_arena_lacks_is_left_out(tiny, tmp_path):
    said = call("run", "free-matches-pgd", folder=tmp_path).output  # it reports an arm that this world lacks
    assert said.startswith("free-matches-pgd (digits): 0 of 4 runs recorded, 4 to go")
    assert load_result("defenses.digits", tmp_path).arms == ["free-8", "pgd-7"]
    said = call("run", "free-m-tradeoff", folder=tmp_path).output
    assert "not run: free-2 is not in the recording" in said
    campaign = cli_claims._Campaign(None, 1, False, tmp_path)
    before = contents(tmp_path)
    campaign.measure("nothing", "defenses", "digits", ["fgsm-rs"])
    assert contents(tmp_path) == before


def test_verify_says_run_by_run_what_came_out(tiny, tmp_path):
    call("run", "free-robust", folder=tmp_path)
    done = call("verify", folder=tmp_path)
    assert (done.exit_code, done.output.splitlines()) == (
        0,
        [
            "defenses.digits",
            "  2 recorded runs to measure again",
            "  natural, seed 0: 0 s, the same, bit by bit (1 of 2)",
            "  free-8, seed 1: 0 s, the same, bit by bit (2 of 2)",
            "  2 measured again: 2 the same bit by bit, 0 where their seeds lie",
        ],
    )


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        (["--all"], 4),
        (["--seed", "1"], 2),
        (["--arm", "natural", "--all"], 2),
        (["free-matches-pgd"], 1),  # free-8; its other arm is not recorded
        (["free-robust", "--arena", "digits", "--jobs", "2"], 2),
    ],
)
def test_verify_measures_what_is_asked_for(tiny, tmp_path, words, runs):
    call("run", "free-robust", folder=tmp_path)
    assert f"  {runs} recorded run" in call("verify", *words, folder=tmp_path).output


def test_an_arm_is_verified_where_it_is_recorded(fails):
    places = cli_claims._recorded_experiments(None, "real", None)  # of several chapters
    assert len(places) > 1
    ((experiment, cells),) = cli_claims._cells_to_verify(places, None, ["pii@lite0"], seed=3, everything=False)
    assert (experiment.id, [(arm.name, seed) for arm, seed in cells]) == ("inversion.real", [("pii@lite0", 3)])
    code, said = fails("claims", "verify", "--arena", "real", "--arm", "pii@lite")
    assert (code, said.startswith("unknown recorded arm 'pii@lite': did you mean pii@lite")) == (2, True)
    code, said = fails("claims", "verify", "--arm", "pii@lite0", "--seed", "9")
    assert (code, said.startswith("no such run is recorded in inversion.real")) == (2, True)


def test_verify_ends_with_exit_code_1_where_anything_lies_outside(tiny, tmp_path, monkeypatch):
    call("run", "free-robust", folder=tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(reproducing, "prediction_interval", lambda values, level: (min(values), max(values)))
    monkeypatch.setitem(sys.modules["tiny_experiment"].RATES, "free-8", 0.1)
    done = call("verify", folder=tmp_path)
    assert done.exit_code == 1
    assert "  free-8, seed 1: 0 s, outside: N is " in done.output
    assert "2 measured again: 1 the same bit by bit, 0 where their seeds lie" in done.output
    assert "outside: free-8 (seed 1): find the change that did it" in done.output
    assert {name: text for name, text in contents(tmp_path).items() if name in before} == before


def test_verify_without_a_recording_is_a_sentence(tiny, tmp_path, fails):
    code, said = fails("claims", "verify", "--folder", tmp_path)
    assert (code, said.strip()) == (2, "nothing is recorded there yet: measure with `thesis-kit claims run`")
    code, said = fails("claims", "verify", "free-robust", "--folder", tmp_path)
    assert (code, "unknown recording 'defenses.digits'" in said) == (2, True)
    code, said = fails("claims", "verify", "--all", "--seed", "1", "--folder", tmp_path)
    assert (code, "--all and --seed exclude each other" in said) == (2, True)


def test_ctrl_c_is_a_sentence(tiny, tmp_path, fails, monkeypatch):
    call("run", "free-robust", folder=tmp_path / "recorded")

    def interrupted(*_):
        raise KeyboardInterrupt
        yield

    for module in (runner_module, reproducing):
        monkeypatch.setattr(module, "execute", interrupted)
    code, said = fails("claims", "run", "free-robust", "--folder", tmp_path / "new")
    assert (code, said) == (130, "stopped; nothing was measured yet\n")
    code, said = fails("claims", "run", "free-robust", "--folder", tmp_path / "recorded")
    assert (code, f"kept in {tmp_path / 'recorded'}, and the same command goes on from there" in said) == (130, True)
    code, said = fails("claims", "verify", "free-robust", "--folder", tmp_path / "recorded")
    assert (code, said.startswith("stopped; no recording was changed")) == (130, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "fre-robust"), "unknown claim 'fre-robust': did you mean free-robust"),
        (("run", "free-robst"), "unknown claim 'free-robst': did you mean free-robust"),
        (("run", "--arena", "digit"), "unknown arena 'digit': did you mean digits"),
        (("verify", "free-robst"), "unknown claim 'free-robst': did you mean free-robust"),
        (("verify", "--arena", "digit"), "unknown arena 'digit': did you mean digits"),
    ],
)
def test_a_wrong_name_is_one_red_sentence(fails, words, sentence):
    code, said = fails("claims", *words)
    assert code == 2
    assert said.startswith(sentence)
    assert "Traceback" not in said


def test_a_damaged_result_stops_who_needs_it_and_nobody_else(folder, tiny, fails):
    path = arm_file("defenses.digits", "natural", folder)
    path.write_bytes(path.read_bytes()[:-100])
    said = call("show", "free-robust", folder=folder).output
    assert "not run: digits/natural.jsonl, line 4: this is no JSON" in said.replace("\n", " ")
    code, said = fails("claims", "run", "free-robust", "--folder", folder)
    assert (code, said.startswith("digits/natural.jsonl, line 4: this is no JSON")) == (2, True)
    assert call("run", "free-strong", folder=folder).exit_code == 0


def test_debug_shows_where_an_error_came_from(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["thesis-kit", "--debug", "claims", "show", "nothing"])
    with pytest.raises(ValueError, match="unknown claim"):
        cli.main()
