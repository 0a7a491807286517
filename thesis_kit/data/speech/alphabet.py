"""What a recognizer of letters writes: a blank, a space and a to z, as numbers."""

from __future__ import annotations

from collections.abc import Iterable

BLANK = 0
TOKENS = ("", " ", *"abcdefghijklmnopqrstuvwxyz")  # number 0 is the blank of CTC
_NUMBER = {token: number for number, token in enumerate(TOKENS)}


def encode(text: str) -> list[int]:
    """The tokens of a text: letters and single spaces; capitals count as small.

    Raises:
        ValueError: it holds something else, which is named.

    Examples:
        >>> tk.data.speech.decode(tk.data.speech.encode("Red Lamp"))
        'red lamp'
    """
    words = text.lower().split()
    strange = sorted({letter for word in words for letter in word} - set(_NUMBER))
    if strange:
        raise ValueError(f"a transcript may hold a to z and spaces, got {', '.join(map(repr, strange))} in {text!r}")
    return [_NUMBER[letter] for letter in " ".join(words)]


def decode(path: Iterable[int]) -> str:
    """The text of a path of best tokens, frame by frame: repeats count once, blanks part repeats (CTC's collapse).

    Examples:
        >>> tk.data.speech.decode([*tk.data.speech.encode("go"), *tk.data.speech.encode("o")])
        'go'
    """
    letters, last = [], BLANK
    for number in path:
        if number != last and number != BLANK:
            letters.append(TOKENS[number])
        last = number
    return " ".join("".join(letters).split())
