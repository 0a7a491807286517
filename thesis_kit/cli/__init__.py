"""The command line, ``thesis-kit`` or ``python -m thesis_kit.cli``."""

from thesis_kit.cli.main import app, main

__all__ = ["app", "main"]
