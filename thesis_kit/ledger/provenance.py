"""Where a number comes from: the commit of the code, the versions it ran with, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("numpy", "scipy", "timm", "torchvision")


@cache
def commit() -> str | None:
    """The commit of the checkout that the package lies in, with "+" where files of it have been changed since; None
    where it is not a checkout."""
    try:
        head = _git("rev-parse", "HEAD")
        return f"{head}+" if _git("status", "--porcelain", "--", "thesis_kit/*.py") else head
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    if not (_ROOT / ".git").exists():  # installed into somebody else's repository
        raise FileNotFoundError(_ROOT / ".git")
    return subprocess.run(["git", *words], cwd=_ROOT, check=True, capture_output=True, text=True).stdout.strip()


@cache
def environment() -> dict[str, str]:
    """Versions of this package and of those beside torch that numbers may depend on."""
    from thesis_kit import __version__

    found = {name: _version(name) for name in _PACKAGES}
    return {"thesis_kit": __version__, **{name: said for name, said in found.items() if said}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine(device: str = "cpu", threads: int = 1) -> dict[str, object]:
    """The machine as a reader would want it described; nothing that identifies its owner."""
    return {
        "processor": _device_name(device),
        "cores": os.cpu_count(),
        "threads": threads,
        "device": device,
        "python": platform.python_version(),
        "torch": getattr(sys.modules.get("torch"), "__version__", None) or _version("torch"),  # with its build
    }


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return _processor()
    import torch  # heavy, and needed only where there is a GPU

    return torch.cuda.get_device_name()
