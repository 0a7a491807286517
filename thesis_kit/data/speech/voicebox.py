"""The program that speaks: eSpeak NG behind a pipe, in a process of its own, with nothing but the standard library.

eSpeak NG is one global, thread-unsafe state, can crash, and begins an utterance where its noise and its flutter ended
the one before. So it lives outside of whoever wants to hear it, and every utterance is spoken by a fork of a process
that has not spoken yet: the same words give the same samples. Where processes cannot fork, this one speaks once and
ends. ``synthesizer`` starts it as ``python voicebox.py LIBRARY DATA``.

A request is a line of JSON with text, voice, pitch and rate, or with "list". The answer is a line of JSON, followed by
as many bytes of 16-bit samples as it says.
"""

import ctypes
import json
import os
import signal
import sys

_SYNCHRONOUS, _PHONES_WITHOUT_EXIT = 2, 0x8001  # espeak_AUDIO_OUTPUT; espeakINITIALIZE_PHONEME_EVENTS | _DONT_EXIT
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_WORD, _END, _PHONE = 1, 5, 7  # espeak_EVENT_TYPE
_UTF8 = 1


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
                ("length", ctypes.c_int), ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int),
                ("user_data", ctypes.c_void_p), ("id", _Id)]  # fmt: skip


class _Voice(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("languages", ctypes.POINTER(ctypes.c_char)),
                ("identifier", ctypes.c_char_p)]  # the beginning of espeak_VOICE, which is all that is read


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Speaker:
    """The library, ready to speak."""

    def __init__(self, library: str, data: str):
        self.library, self.samples, self.events = ctypes.CDLL(library), bytearray(), []
        self.rate = self.library.espeak_Initialize(_SYNCHRONOUS, 200, os.fsencode(data), _PHONES_WITHOUT_EXIT)
        if self.rate <= 0:
            raise OSError(f"eSpeak NG does not start with the data in {data}")
        self._callback = _CALLBACK(self._heard)  # kept, or it would be collected
        self.library.espeak_SetSynthCallback(self._callback)

    def _heard(self, samples, count, events):
        if samples and count:
            self.samples += ctypes.string_at(samples, 2 * count)
        place = 0
        while events[place].type:
            event = events[place]
            if event.type in (_WORD, _END):
                self.events.append([event.type, event.sample, event.text_position, event.length])
            elif event.type == _PHONE:
                self.events.append([event.type, event.sample, bytes(event.id.string).decode("utf-8", "replace")])
            place += 1
        return 0

    def say(self, text: str, voice: str, pitch: int, rate: int) -> bytes:
        """The answer to a request to speak."""
        if self.library.espeak_SetVoiceByName(voice.encode()):
            return _answer({"error": f"eSpeak NG has no voice {voice!r}"})
        self.library.espeak_SetParameter(_RATE, rate, 0)
        self.library.espeak_SetParameter(_PITCH, pitch, 0)
        self.library.espeak_ng_SetRandSeed(1)  # of the breath in some voices, which else is the clock's
        spoken = text.encode()
        failed = self.library.espeak_Synth(spoken, len(spoken) + 1, 0, 1, 0, _UTF8, None, None)
        if failed:
            return _answer({"error": f"eSpeak NG cannot say {text!r} (its error {failed})"})
        return _answer({"rate": self.rate, "events": self.events}, bytes(self.samples))

    def voices(self) -> bytes:
        """The answer to a request for voices: for every identifier and language the first identifier that has it."""
        list_voices = self.library.espeak_ListVoices
        list_voices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        found, names, place = list_voices(None), {}, 0
        while found[place]:
            identifier = found[place].contents.identifier.decode()
            for name in (identifier, *_languages(found[place].contents.languages)):
                names.setdefault(name, identifier)
            place += 1
        return _answer({"voices": names})


def _languages(packed) -> list:
    """The languages of a voice: each a byte of priority and a name that ends with a zero; a zero ends them all."""
    names, place = [], 0
    while packed[place] != b"\0":
        name, place = b"", place + 1
        while packed[place] != b"\0":
            name, place = name + packed[place], place + 1
        names.append(name.decode())
        place += 1
    return names


def _answer(head: dict, samples: bytes = b"") -> bytes:
    return json.dumps({**head, "bytes": len(samples)}).encode() + b"\n" + samples


def _reply(speaker: _Speaker, request: dict) -> bytes:
    return speaker.voices() if "list" in request else speaker.say(**request)


def _forked(speaker: _Speaker, request: dict) -> bytes:
    """The answer of a fork, whose end, however it comes, is not this process's."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(_reply(speaker, request))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return answer if status == 0 else _answer({"crashed": f"ended with status {status}"})


def main() -> None:
    """Answer requests until the pipe is closed."""
    speaker, can_fork = _Speaker(*sys.argv[1:]), hasattr(os, "fork")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of whoever started this
    for line in sys.stdin.buffer:
        request = json.loads(line)
        sys.stdout.buffer.write(_forked(speaker, request) if can_fork else _reply(speaker, request))
        sys.stdout.buffer.flush()
        if not can_fork:
            return


if __name__ == "__main__":
    main()
