"""Values from a user in commands, scripts and directives: quoted where a shell reads them, else refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Final

from sparsecomm.errors import InputError

# Schedulers read their directives with parsers of their own, each with other rules for quotes, so that nothing is
# quoted there: these characters mean themselves to all of them. `&|*[]~` are Slurm's constraints.
_PLAIN: Final = r"A-Za-z0-9_.,:/=+@%&|*\[\]~\-"
_DIRECTIVE: Final = re.compile(f"[{_PLAIN}]+")
_FREE_DIRECTIVE: Final = re.compile(f"-[{_PLAIN} ]*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def check_directive(value: str, option: str) -> str:
    """Return a value that goes into a directive.

    Raises:
        InputError: it has a character that is not plain.
    """
    if not _DIRECTIVE.fullmatch(value):
        _refuse(value, option, _DIRECTIVE)
    return value


def check_free_directive(text: str, option: str) -> str:
    """Return a directive that a user wrote whole: it begins with a dash and may have spaces.

    Raises:
        InputError: it has another form, or a character that is not plain.
    """
    if not _FREE_DIRECTIVE.fullmatch(text) or len(text) < 2:
        _refuse(text, option, _FREE_DIRECTIVE)
    return text


def _refuse(value: str, option: str, allowed: re.Pattern[str]) -> None:
    if allowed is _FREE_DIRECTIVE and not value.startswith("-"):
        raise InputError(f"{option} {value!r} must begin with a dash, as in {option}=--constraint=gpu")
    wrong = next((one for one in value if not re.fullmatch(f"[{_PLAIN}]", one)), "")
    what = f"has {wrong!r}" if wrong else "is empty"
    raise InputError(
        f"{option} {value!r} {what}, which cannot be put into a job script's directives; "
        "letters, digits and _.,:/=+@%&|*[]~- can"
    )


def check_text(value: str, option: str) -> str:
    """Return a value that a script quotes for the shell.

    A line of its own in it could be taken for a directive: LSF reads them anywhere in a script.

    Raises:
        InputError: it has a line break or another control character.
    """
    if found := _CONTROL.search(value):
        raise InputError(f"{option} {value!r} has the control character {found[0]!r}; a job script cannot hold it")
    return value


def check_word(value: str, option: str) -> str:
    """Return a value that is one word of a command.

    Raises:
        InputError: the system cannot pass it.
    """
    if "\0" in value:
        raise InputError(f"{option} {value!r} has a zero byte, which no command can be given")
    if any("\ud800" <= one <= "\udfff" for one in value):
        raise InputError(f"{option} {value!r} is not UTF-8; it could be neither printed nor written to a script")
    return value


def check_plain_word(value: str, option: str) -> str:
    """Return a word that a launcher does not take for one of its own options.

    Raises:
        InputError: it is empty, begins with a dash, or cannot be passed.
    """
    if not value or value.startswith("-"):
        raise InputError(f"{option} {value!r} is empty or begins with a dash")
    return check_word(value, option)


def parse_variable(text: str) -> tuple[str, str]:
    """Return name and value of `NAME=VALUE`.

    Raises:
        InputError: it has another form, or the name is none.
    """
    name, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise InputError(f"--env {text!r} is not NAME=VALUE with a name of letters, digits and underscores")
    return name, check_word(value, "--env")


def join_words(words: Iterable[str]) -> str:
    """Return a command as a shell reads it."""
    return shlex.join(words)


def join_lines(groups: Sequence[Sequence[str]]) -> str:
    """Return a command as a shell reads it, one option a line."""
    return " \\\n    ".join(shlex.join(group) for group in groups)
