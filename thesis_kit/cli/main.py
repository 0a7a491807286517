"""Where the command line begins. Next to nothing is imported before, so that Ctrl-C ends quietly from then on."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; whatever ends it early is one sentence: exit code 2, or 130 after Ctrl-C."""
    try:
        from thesis_kit.cli.ending import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped; nothing was changed", file=sys.stderr)
        code = 130
    sys.exit(code)
