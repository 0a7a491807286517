"""``python -m thesis_kit.cli``."""

from thesis_kit.cli.main import main

main()
