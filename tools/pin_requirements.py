"""Write requirements.txt: every package of the running environment at its exact version.

Run it in an environment whose tests pass, after adding or raising a dependency. What only the CUDA build
of PyTorch brings carries a platform marker, so that the same file installs on a laptop without it.
"""

from __future__ import annotations

import re
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = {"thesis-kit", "pip", "wheel", "resemblyzer"}  # the last is installed alone: ALONE in the Makefile
CUDA = re.compile(r"^(nvidia-|cuda-|triton$)")
CUDA_MARKER = '; sys_platform == "linux" and platform_machine == "x86_64"'
HEADER = """\
# The whole tested environment, every version exact; written by tools/pin_requirements.py.
# The package itself asks for lower bounds only: see pyproject.toml.
"""


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Name → exact version of each installed package, without the project and the installer itself."""
    installed = {d.metadata["Name"]: d.version.split("+")[0] for d in distributions()}
    return {name: version for name, version in installed.items() if normalized(name) not in LEFT_OUT}


def requirement_lines(pins: dict[str, str]) -> list[str]:
    names = sorted(pins, key=normalized)
    return [f"{name}=={pins[name]}{CUDA_MARKER if CUDA.match(normalized(name)) else ''}" for name in names]


if __name__ == "__main__":
    text = HEADER + "\n".join(requirement_lines(pins())) + "\n"
    (ROOT / "requirements.txt").write_text(text, encoding="utf-8")
