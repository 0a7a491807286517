"""Packages that only a part of thesis_kit uses: loaded there, and named in a sentence where they are missing.

Attacks, certificates, training and synthesis on a model of one's own need none of them. What does asks ``needs``, which
says which extra of the package brings the missing one.
"""

from __future__ import annotations

import importlib
from types import ModuleType

EXTRAS = {  # module → the extra of pyproject.toml that brings it
    "IPython": "show",
    "PIL": "show",
    "espeakng_loader": "speech",
    "ipywidgets": "show",
    "jupytext": "book",
    "matplotlib": "show",
    "open_clip": "clip",
    "sklearn": "data",
    "soundfile": "speech",
    "timm": "timm",
    "torchaudio": "speech",
    "torchvision": "data",
}


class MissingPackage(ImportError):
    """A package that this call needs is not installed; the message names the extra that brings it."""


def needs(module: str, *, extra: str | None = None) -> ModuleType:
    """Return the module of an optional package, or say which extra brings it.

    Args:
        module: its dotted name, such as "matplotlib.figure".
        extra: the extra to name; the one that ``EXTRAS`` knows unless given.

    Raises:
        MissingPackage: the package is not installed.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise  # it is there and lacks something itself
        raise MissingPackage(missing(package, extra)) from error


def missing_alone(command: str) -> str:
    """The sentence about a package that no extra brings, for it asks for others that nobody here needs."""
    package = command.split()[-1].partition("==")[0]
    return f"the package {package} is not installed and is needed here: install it alone, by {command}"


def missing(package: str, extra: str | None = None) -> str:
    """The sentence about a package that is not installed."""
    extra = extra or EXTRAS.get(package)
    offer = f'install it, or thesis_kit with the extra that brings it: pip install ".[{extra}]" in its checkout'
    return f"the package {package} is not installed and is needed here: {offer if extra else 'install it'}"
