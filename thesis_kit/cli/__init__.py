"""The command line, ``thesis-kit`` or ``python -m thesis_kit.cli``."""

from __future__ import annotations

from typing import Any

from thesis_kit.cli.main import main

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    if name == "app":
        from thesis_kit.cli.commands import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
