"""What a command writes: results on stdout, progress and errors on stderr, secrets on neither."""

import os
import re
import sys
import traceback as tracebacks
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO, cast

from connectors.errors import HeadwaterError
from connectors.secrets import MASK, mask

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SECRET_NAME = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|KEY|APIKEY)($|_)", re.IGNORECASE)
URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):([^\s/@]+)(?=@)")

_protected: set[str] = set()
_is_debug = False


def protect(values: Iterable[str]) -> None:
    """Never show these values again, in whatever is written from now on."""
    _protected.update(value for value in values if value)


def protect_environment() -> None:
    """Protect every environment variable that is named like a secret, and every password in a URL."""
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= 6 and not value.startswith(("/", "~")):
            _protected.add(value)
        protect_urls(value)


def protect_urls(*urls: str) -> None:
    """Never show the passwords of these URLs again, also where they stand alone."""
    for url in urls:
        _protected.update(match[2] for match in URL_PASSWORD.finditer(url))


def masked(text: str) -> str:
    """The text without any protected value and without the password of any URL."""
    return URL_PASSWORD.sub(rf"\1:{MASK}", mask(text, _protected))


class _Masked:
    """A text stream that masks what passes; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mask_streams() -> None:
    """Put the mask before stdout and stderr of this process; twice is once."""
    protect_environment()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Masked):
            setattr(sys, name, cast("TextIO", _Masked(stream)))


def note(line: str) -> None:
    """One line on stderr: progress, a reason, a hint."""
    print(line, file=sys.stderr, flush=True)


def failure(error: HeadwaterError) -> None:
    """The error as its class and at most six lines."""
    note(f"{error.failure_class} error: {error}")


def unexpected(error: BaseException, where: str = "") -> None:
    """An error that nobody planned for, as one line."""
    first = (str(error).strip().splitlines() or ["no message"])[0]
    place = f"{where}: " if where else ""
    note(f"{place}unexpected {type(error).__name__}: {first}; run again with --debug for the traceback")


def set_debug(*, is_debug: bool) -> None:
    global _is_debug
    _is_debug = is_debug


def debug_traceback(error: BaseException) -> None:
    """The error's traceback, when --debug was given."""
    if _is_debug:
        note("".join(tracebacks.format_exception(error)).rstrip())


def count(number: int, word: str) -> str:
    """`1 stream`, `2 streams`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def console(*, stderr: bool = False, is_data: bool = False) -> "Console":
    """Rich's console on a masked stream; without a terminal as wide as the text needs.

    is_data: what a source sent is shown as it is; `[/b]` and `:smile:` in it mean nothing.
    """
    from rich.console import Console  # 0.15 s that --help need not wait for

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 240
    return Console(file=stream, width=width, highlight=False, markup=not is_data, emoji=not is_data)


def table(title: str, *columns: str, right: Iterable[str] = ()) -> "Table":
    """A table without frames; `right` names the columns of numbers."""
    from rich import box
    from rich.table import Table

    made = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for column in columns:
        made.add_column(column, justify="right" if column in set(right) else "left", overflow="fold")
    return made
