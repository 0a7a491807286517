"""Bars are shown where asked for, hidden elsewhere, and never write to standard output."""

from __future__ import annotations

import sys

import pytest

from thesis_kit.progress import set_progress, track


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    """rich draws only on terminals, and takes this word for it."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    yield
    set_progress(None)


def shown(capsys, asked=None) -> bool:
    with track("counting sheep", 3, asked) as bar:
        bar.describe("counting wolves")
        bar.advance()
        bar.advance(2)
    captured = capsys.readouterr()
    assert captured.out == ""
    return "counting wolves" in captured.err


@pytest.mark.parametrize("environment", ["0", "1", "", None])
@pytest.mark.parametrize("session", [True, False, None])
@pytest.mark.parametrize("asked", [True, False, None])
def test_the_call_wins_over_the_session_and_the_session_over_the_environment(
    capsys, monkeypatch, environment, session, asked
):
    if environment is None:
        monkeypatch.delenv("TK_PROGRESS", raising=False)
    else:
        monkeypatch.setenv("TK_PROGRESS", environment)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    set_progress(session)
    expected = next((said for said in (asked, session) if said is not None), environment == "1")
    assert shown(capsys, asked) == expected


def test_without_a_word_a_terminal_or_a_notebook_decides(capsys, monkeypatch):
    monkeypatch.delenv("TK_PROGRESS", raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert not shown(capsys)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert shown(capsys)


def test_a_bar_inside_a_bar_is_hidden(capsys):
    with track("outer", 1, True), track("inner", 1, True) as bar:
        bar.advance()
    said = capsys.readouterr().err
    assert "outer" in said
    assert "inner" not in said
    assert shown(capsys, True)


def test_a_silent_bar_around_does_not_hide_the_one_inside(capsys):
    with track("outer", 1, False):
        assert shown(capsys, True)


def test_after_an_exception_bars_work_again(capsys):
    with pytest.raises(ZeroDivisionError), track("outer", 1, True):
        raise ZeroDivisionError
    capsys.readouterr()
    assert shown(capsys, True)


def test_a_resumed_bar_starts_where_it_was(capsys):
    with track("half way", 10, True, start=5):
        pass
    assert "5/10" in capsys.readouterr().err
