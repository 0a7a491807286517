"""Speech with known times: words said by eSpeak NG in a process that may crash without taking a run along.

The library comes with the package espeakng-loader; ``voicebox`` is the program that loads it. A process that dies is
started again and asked once more; one that dies of the same words twice is reported. Every ``Synthesizer`` has a
process of its own, so any number of them work beside each other.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from thesis_kit.checks import choose
from thesis_kit.extras import needs
from thesis_kit.names import check_count

PITCHES, RATES = (0, 99), (80, 450)  # what eSpeak NG takes: a number without a unit, and words a minute
_WORD, _END, _PHONE = 1, 5, 7
_PATIENCE = 60.0  # seconds for one utterance, after which the process counts as hung


class SynthesizerDied(RuntimeError):
    """The speaking process ended twice while it was to say the same words."""


@dataclass(frozen=True)
class Utterance:
    """What is to be said, and how: text, a voice of eSpeak NG, its pitch in 0 … 99 and words a minute in 80 … 450."""

    text: str
    voice: str = "en-us"
    pitch: int = 50
    rate: int = 160


@dataclass(frozen=True)
class Spoken:
    """What came out: samples (t,) int16 at ``rate`` Hz, and (start, end, name) in samples of phones and of words."""

    samples: np.ndarray
    rate: int
    phones: tuple[tuple[int, int, str], ...]
    words: tuple[tuple[int, int, str], ...]


@cache
def library() -> tuple[str, str, str]:
    """Paths of eSpeak NG's library and data, and a hash of the library and its English rules.

    Raises:
        MissingPackage: espeakng-loader is not installed.
    """
    loader = needs("espeakng_loader")
    path, data = loader.get_library_path(), Path(loader.get_data_path())
    told = sha256(Path(path).read_bytes())
    for name in ("phondata", "phontab", "phonindex", "intonations", "en_dict"):
        told.update((data / name).read_bytes())
    return path, str(data), told.hexdigest()[:16]


class Synthesizer:
    """A speaking process, started when it is first needed; ``close`` or the end of a ``with`` block ends it."""

    def __init__(self) -> None:
        self._process, self._lock = None, threading.Lock()

    def __enter__(self) -> Synthesizer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; the next request starts another."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def say(self, utterance: Utterance) -> Spoken:
        """Say something, the same samples for the same utterance wherever it comes in a sequence.

        Raises:
            ValueError: a text without letters or digits, a pitch or rate out of range. UnknownName: no such voice.
            SynthesizerDied: the process ended twice. MissingPackage: espeakng-loader is not installed.
        """
        check_utterance(utterance)
        head, samples = self._ask({**vars(utterance), "voice": self._identifier(utterance.voice)})
        return _spoken(utterance.text, head, np.frombuffer(samples, dtype="<i2"))

    def voices(self) -> list[str]:
        """Names of voices: languages, such as "en-us". Behind a "+" a voice may name one of ``variants()``."""
        return list(_voices(self._ask))

    def _identifier(self, voice: str) -> str:
        """What the library calls a voice: it knows all by their identifiers, and not all by their languages."""
        language, plus, variant = voice.partition("+")
        identifier = choose(language, _voices(self._ask), "voice")
        if plus and variant not in variants():
            choose(variant, variants(), "variant of a voice")
        return identifier + plus + variant

    def _ask(self, request: dict) -> tuple[dict, bytes]:
        """The answer of the process, of a new one where it dies."""
        with self._lock:
            for _ in range(2):
                answer = self._answer(request)
                if answer is not None and "crashed" not in answer[0]:
                    break
                self.close()
        if answer is None or "crashed" in answer[0]:
            raise SynthesizerDied(
                f"eSpeak NG ended twice while it was to say {request.get('text', 'its voices')!r}: try other words or "
                "another voice"
            )
        if "error" in answer[0]:
            raise ValueError(f"{answer[0]['error']}: try other words or another voice")
        return answer

    def _answer(self, request: dict) -> tuple[dict, bytes] | None:
        """One try; None where the process ends before it has answered."""
        if self._process is None or self._process.poll() is not None:
            self._process = _started()
            weakref.finalize(self, _end, self._process)
        process = self._process
        watch = threading.Timer(_PATIENCE, process.kill)
        watch.start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
            head = json.loads(line) if line.endswith(b"\n") else None
            samples = process.stdout.read(head["bytes"]) if head else b""
            return (head, samples) if head and len(samples) == head["bytes"] else None
        except OSError:
            return None
        except BaseException:  # an answer that is half read must not be taken for the next one's
            self.close()
            raise
        finally:
            watch.cancel()


def _started() -> subprocess.Popen:
    path, data, _ = library()
    command = [sys.executable, "-I", str(Path(__file__).with_name("voicebox.py")), path, data]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _end(process: subprocess.Popen) -> None:
    process.kill()
    with contextlib.suppress(OSError):
        process.stdin.close()
    process.stdout.close()
    process.wait()


_VOICES: dict[str, str] = {}


def _voices(ask: Callable) -> dict[str, str]:
    """The names of voices and the library's identifiers of them, asked for once a program."""
    if not _VOICES:
        _VOICES.update(ask({"list": True})[0]["voices"])
    return _VOICES


@cache
def variants() -> tuple[str, ...]:
    """Names of variants, the timbres that a voice may take: "en-us+f2" is en-us as variant f2."""
    return tuple(sorted(path.name for path in (Path(library()[1]) / "voices" / "!v").iterdir()))


def check_utterance(utterance: Utterance) -> None:
    """Require a text that can be said, and a pitch and a rate in range."""
    if not isinstance(utterance.text, str) or not any(letter.isalnum() for letter in utterance.text):
        raise ValueError(f"a text to say must hold a letter or digit, got {utterance.text!r}")
    if "\0" in utterance.text:
        raise ValueError(f"a text to say must not hold the character NUL, got {utterance.text!r}")
    for what, (least, most) in {"pitch": PITCHES, "rate": RATES}.items():
        value = getattr(utterance, what)
        check_count(value, what=what, least=least)
        if value > most:
            raise ValueError(f"{what} must lie in {least} … {most}, got {value}")


def _spoken(text: str, head: dict, samples: np.ndarray) -> Spoken:
    """Events as intervals: a phone lasts until the next one, a word from its first phone to its last."""
    end = min([event[1] for event in head["events"] if event[0] == _END] or [len(samples)])
    starts = [(event[1], event[2]) for event in head["events"] if event[0] == _PHONE]
    stops = [start for start, _ in starts[1:]] + [end]
    phones = [(start, stop, name) for (start, name), stop in zip(starts, stops, strict=True) if stop > start]
    said = [(event[1], event[2] - 1, event[3]) for event in head["events"] if event[0] == _WORD]
    words, bounds = [], [place for place, _, _ in said[1:]] + [end + 1]
    for (place, first, length), bound in zip(said, bounds, strict=True):
        # A word is announced a little before its first phone, in the closure of a stop, say.
        own = [phone for phone in phones if place <= phone[0] < bound and not phone[2].startswith("_")]
        if own:
            words.append((own[0][0], own[-1][1], text[first : first + length]))
    return Spoken(samples, head["rate"], tuple(phones), tuple(words))
