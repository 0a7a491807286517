"""How a command ends: with an exit code and, where something came between, one sentence.

An error, whichever library it comes from, is a sentence in red and exit code 2; ``--debug`` shows where it came from.
Ctrl-C is a sentence about what was kept and how to go on, and exit code 130.
"""

from __future__ import annotations

from thesis_kit.cli import streams
from thesis_kit.cli.pages import errors
from thesis_kit.cli.stopping import Stopped, kept, one_line

_STOPPED = 130  # 128 and the number of the signal, as shells count
_NOTHING = "nothing was changed"
_EXPECTED = (ValueError, TypeError, OSError, ImportError)  # they say themselves what is wrong


def run(arguments: list[str]) -> int:
    """Run the command line with these arguments and return its exit code."""
    streams.tolerate()
    debug = "--debug" in arguments
    try:
        code = _called([word for word in arguments if word != "--debug"])
        with kept("the command had finished, but for what it prints"):
            streams.flush()
        return code
    except Stopped as stopped:
        errors.print(f"stopped; {stopped}")
        return _STOPPED
    except Exception as error:
        return _failed(error, debug)


def _called(arguments: list[str]) -> int:
    with kept(_NOTHING):
        from thesis_kit.cli.commands import app

        code = app(arguments, standalone_mode=False)
    if code == _STOPPED:  # typer has caught it
        raise Stopped(_NOTHING)
    return code if isinstance(code, int) else 0


def _failed(error: Exception, debug: bool) -> int:
    """Say what went wrong; typer's own errors are told by name, for the class depends on its version."""
    kind = type(error).__name__
    if kind == "Abort":
        errors.print(f"stopped; {_NOTHING}")
        return _STOPPED
    if kind == "NoArgsIsHelpError":
        error.show()
    elif debug:
        raise error
    else:
        errors.print(sentence(error), style="red")
    return 2


def sentence(error: BaseException) -> str:
    """One sentence about an error."""
    if hasattr(error, "format_message"):
        return _usage(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        from thesis_kit.extras import missing

        return missing(error.name.partition(".")[0])
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the output'}: {error.strerror}"
    text = one_line(str(error))
    ours = type(error).__module__.partition(".")[0] == "thesis_kit"
    if text and (ours or isinstance(error, _EXPECTED)):
        return text
    return f"{type(error).__name__}{f': {text}' if text else ''} (--debug shows where it came from)"


def _usage(error: BaseException) -> str:
    """What is wrong with how a command was written, and where its options are listed."""
    said = one_line(error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{said} (`{context.command_path} --help` shows what it takes)" if context else said
