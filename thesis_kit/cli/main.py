"""Where the command line begins. Next to nothing is imported before, so that Ctrl-C ends quietly from then on."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; whatever ends it early is one sentence: exit code 2, or 130 after Ctrl-C."""
    # Threads that wait for work on a processor that others keep busy would cost a hundred times the work itself.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE"), os.environ.setdefault("KMP_BLOCKTIME", "0")
    said = "stopped; nothing was changed"
    try:
        from thesis_kit.cli.ending import run

        said = "stopped"  # between two of the sentences that ``run`` has
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        print(said, file=sys.stderr)
        code = 130
    sys.exit(code)
