"""How a command fails: one sentence with a remedy on stderr, and an exit code. Never a traceback, unless asked for.

Exit codes: 0 done, 1 failed, 2 the command line is wrong, 3 another process holds the data directory,
4 there is no such topic, group or table, 130 interrupted, 141 the reader of our output went away,
143 terminated.
"""

import difflib
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterable
from enum import IntEnum

import click
import orjson

from streamcore.cli.settings import Settings
from streamcore.errors import DirectoryHeldError, StreamcoreError, UnknownTopicError, UsageError


class ExitCode(IntEnum):
    """What the shell sees."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    HELD = 3
    NOT_FOUND = 4
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


_NEAR = 0.6  # difflib's own idea of a close match


class CommandError(click.ClickException):
    """A command cannot do what was asked; the message holds the remedy."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = exit_code


class NotFoundError(CommandError):
    """There is no such topic, group or table."""

    def __init__(self, kind: str, name: str, names: Iterable[str], remedy: str) -> None:
        super().__init__(f"No such {kind} '{name}'.{did_you_mean(name, names) or ' ' + remedy}", ExitCode.NOT_FOUND)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """ "Did you mean 'x'?" with a space in front, or nothing when no known name is near."""
    bare = name.lstrip("-").lower()
    ratios = {
        other: difflib.SequenceMatcher(None, bare, other.lstrip("-").lower()).ratio()
        for other in names
        if other.lstrip("-")
    }
    # Several only where they are about equally near: one good guess reads better than three.
    best = max(ratios.values(), default=0.0)
    near = [other for other in sorted(ratios) if ratios[other] >= max(_NEAR, best - 0.05)][:3]
    if not near:
        return ""
    if len(near) == 1:
        return f" Did you mean '{near[0]}'?"
    return " Did you mean " + ", ".join(f"'{other}'" for other in near[:-1]) + f" or '{near[-1]}'?"


def report(error: BaseException, settings: Settings) -> int:
    """Write one error to stderr and return the exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort):
        return ExitCode.INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if settings.debug:
        traceback.print_exception(error, file=sys.stderr)
    message, hint, code = _explain(error, settings)
    if settings.json:
        line = orjson.dumps({"error": {"type": type(error).__name__, "message": message, "exit_code": int(code)}})
        click.echo(line.decode(), err=True)
    else:
        click.echo(click.style("Error:", fg="red", bold=True) + f" {message}", err=True)
        if hint:
            click.echo(hint, err=True)
    return code


def _explain(error: BaseException, settings: Settings) -> tuple[str, str, int]:
    """Sentence, hint line and exit code of an error."""
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else "streamcore"
        return _usage_sentence(error), f"Try '{path} --help' for help.", ExitCode.USAGE
    if isinstance(error, CommandError):
        return error.format_message(), "", error.code
    if isinstance(error, click.ClickException):
        return error.format_message(), "", error.exit_code
    if isinstance(error, DirectoryHeldError):
        return _sentence(str(error)), "", ExitCode.HELD
    if isinstance(error, UnknownTopicError):
        return _sentence(str(error)), "", ExitCode.NOT_FOUND
    if isinstance(error, UsageError):
        return _sentence(str(error)), "", ExitCode.USAGE
    if isinstance(error, StreamcoreError):
        return _sentence(str(error)), "", ExitCode.FAILED
    if isinstance(error, OSError):
        return _os_sentence(error), "", ExitCode.FAILED
    told = f"{type(error).__name__}: {error}".rstrip(": ")
    hint = "" if settings.debug else "This is a mistake in the program, not in your command; --debug shows where."
    return f"Unexpected {told}", hint, ExitCode.FAILED


def _usage_sentence(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption):
        known: Iterable[str] = error.possibilities or ()
        if error.ctx is not None:
            parameters = error.ctx.command.get_params(error.ctx)
            known = [name for parameter in parameters for name in parameter.opts if name.startswith("--")]
        return f"No such option '{error.option_name}'.{did_you_mean(error.option_name, known)}"
    sentence = _sentence(error.format_message())
    for jargon in ("is not a valid integer range", "is not a valid integer"):
        sentence = sentence.replace(jargon, "is not a whole number")
    if isinstance(error, click.BadParameter) and error.param is not None and isinstance(error.param.type, click.Choice):
        typed = re.search(r"'([^']*)' is not one of", sentence)
        if typed is not None:
            sentence += did_you_mean(typed[1], [str(choice) for choice in error.param.type.choices])
    return sentence


_REMEDIES = {
    errno.ENOSPC: "free some space on that disk",
    errno.EACCES: "check its owner and permissions, or choose another with --data",
    errno.EPERM: "check its owner and permissions, or choose another with --data",
    errno.EROFS: "it is on a read-only file system; choose another with --data",
    errno.EADDRINUSE: "another program uses that port; choose another one",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOENT: "check the path",
}


def _os_sentence(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
    remedy = _REMEDIES.get(error.errno or 0)
    return _sentence(f"{where}{reason}{f' ({remedy})' if remedy else ''}")


def _sentence(text: str) -> str:
    """One line that starts with a capital and ends with a stop."""
    text = " ".join(text.split())
    if not text:
        return "Failed, and nothing says why."
    # A path, a topic or an option in front keeps its spelling.
    first_word = text.split(" ", 1)[0]
    if first_word.isalpha():
        text = text[0].upper() + text[1:]
    return text if text[-1] in ".?!)" else text + "."


def forget_stdout() -> None:
    """The reader went away: what is left in the buffers must not complain again when the process ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is not a real file: nothing is flushed at exit
        pass
