"""How the demo shows itself: a line per stream and mart while it runs, one table at its end."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from connectors.errors import MAX_LINES
from platform_assets.cli import output
from platform_assets.cli.demo_events import AssetChanged, CheckJudged, Planned

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Kind = Literal["stream", "model", "mart"]
_MARKS: Mapping[str, str] = {"succeeded": "[green]✓[/]", "failed": "[red]✗[/]", "skipped": "[yellow]-[/]"}
SETTLED = frozenset(_MARKS)
QUIET_SECONDS = 10.0
"""Without a terminal, silence is broken after so long."""


@dataclass(slots=True)
class Line:
    """What is known of one asset so far. note: what it is doing, or why it did not succeed."""

    name: str
    kind: Kind
    state: str = "planned"
    status: str = ""
    rows: int | None = None
    seconds: float = 0.0
    table: str = ""
    note: str = ""
    failure_class: str = ""
    since: float = 0.0

    @property
    def shown_status(self) -> str:
        return self.status or self.state


@dataclass(slots=True)
class Board:
    """Everything the demo knows. One thread writes; the display reads."""

    lines: dict[str, Line] = field(default_factory=dict[str, Line])
    checks: dict[tuple[str, str], CheckJudged] = field(default_factory=dict[tuple[str, str], CheckJudged])
    problems: list[str] = field(default_factory=list[str])
    """Failures that belong to no asset: a code location that did not load, a run that ended without a word."""

    def plan(self, event: Planned) -> None:
        for name in event.names:
            self.lines.setdefault(name, Line(name, _kind(event.location, name)))

    def change(self, event: AssetChanged) -> Line:
        line = self.lines.setdefault(event.name, Line(event.name, _kind(event.location, event.name)))
        if event.state == "running":
            line.since = time.monotonic()
        line.state, line.status, line.note = event.state, event.status, event.message
        line.rows, line.seconds, line.table = event.rows, event.seconds, event.table
        line.failure_class = event.failure_class
        return line

    def of(self, kind: Kind) -> list[Line]:
        return [line for line in self.lines.values() if line.kind == kind]

    def of_state(self, state: str) -> list[Line]:
        return [line for line in self.lines.values() if line.state == state]

    @property
    def red_checks(self) -> list[CheckJudged]:
        return [check for check in self.checks.values() if not check.passed]

    @property
    def is_good(self) -> bool:
        """Everything was materialized, and no check with severity error is red; a warning is shown, no more."""
        settled = bool(self.lines) and all(line.state == "succeeded" for line in self.lines.values())
        return settled and not self.problems and not any(check.severity == "error" for check in self.red_checks)


def _kind(location: str, name: str) -> Kind:
    if location == "ingest":
        return "stream"
    return "mart" if name.startswith("marts.") else "model"


class Display(Protocol):
    """What the demo tells while it runs."""

    def say(self, text: str) -> None:
        """One thing the demo is doing outside the runs."""
        ...

    def changed(self, line: Line) -> None: ...

    def idle(self, board: Board) -> None:
        """Nothing has happened for a moment."""
        ...

    def close(self) -> None: ...


def open_display(board: Board) -> Display:
    """Lines that renew themselves on a terminal, one line a change anywhere else."""
    return LiveDisplay(board) if sys.stderr.isatty() else PlainDisplay()


class PlainDisplay:
    """One line a change, with the seconds since the start."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._doing = ""

    def say(self, text: str) -> None:
        self._doing = text
        self._print(text)

    def changed(self, line: Line) -> None:
        # the models of one dbt command all start with it, so their start says nothing
        if line.kind == "stream" or line.state in SETTLED:
            self._print(f"{line.name}: {_words(line)}")

    def idle(self, board: Board) -> None:
        if time.monotonic() - self._last >= QUIET_SECONDS:
            running = [line.name for line in board.of_state("running")]
            more = " and more" if len(running) > 3 else ""
            self._print(f"... {', '.join(running[:3])}{more or ': running'}" if running else f"... {self._doing}")

    def close(self) -> None:
        """Nothing is held open."""

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        # nobody reads on (`2>&1 | head`): the demo goes on, and ends what it started
        with contextlib.suppress(BrokenPipeError):
            output.note(f"{self._last - self._start:6.1f} s  {text}")


class LiveDisplay:
    """The board on a terminal, drawn eight times a second until it is closed."""

    def __init__(self, board: Board) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._board = board
        self._console: Console = output.console(stderr=True)
        self._spinner = Spinner("dots")
        self._text = ""
        self._start = time.monotonic()
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=8, transient=True)
        self._live.start()

    def say(self, text: str) -> None:
        self._text = text

    def changed(self, line: Line) -> None:
        """The next drawing shows it."""

    def idle(self, board: Board) -> None:
        """The seconds run on by themselves."""

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> "RenderableType":
        from rich.markup import escape
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        grid.add_row(self._spinner, f"[bold]{time.monotonic() - self._start:.0f} s[/]", escape(self._text))
        for line in [*self._board.of("stream"), *_summary(self._board.of("model")), *self._board.of("mart")]:
            mark = _MARKS.get(line.state) or (self._spinner if line.state in ("running", "waiting") else "·")
            grid.add_row(mark, line.name, escape(_words(line)))
        return grid


def _summary(models: list[Line]) -> Iterator[Line]:
    """All staging and intermediate models as one line."""
    if not models:
        return
    done = sum(line.state == "succeeded" for line in models)
    settled = all(line.state in SETTLED for line in models)
    state = "planned" if not any(line.state != "planned" for line in models) else "running"
    if settled:
        state = "succeeded" if done == len(models) else "failed"
    yield Line("staging, intermediate", "model", state, status=f"{done} of {len(models)} models")


def _words(line: Line) -> str:
    """The state of one line in a few words."""
    rows = "" if line.rows is None else f"{line.rows:,} rows"
    first = line.note.strip().splitlines()[0] if line.note.strip() else ""
    match line.state:
        case "planned":
            return ""
        case "running":
            return ", ".join(part for part in (first or line.status or "running", rows) if part)
        case "succeeded":
            took = f"in {line.seconds:.1f} s" if line.seconds else ""
            return f"{line.shown_status}, {' '.join(part for part in (rows, took) if part)}".rstrip(", ")
        case _:
            return f"{line.state}: {first}" if first else line.state


def print_report(board: Board, next_steps: list[str]) -> None:
    """The one table on standard output, then each failure in full (at most six lines), then what to try next."""
    table = output.table("", "", "name", "status", "rows", "seconds", right=("rows", "seconds"))
    for line in board.of("stream"):
        table.add_row("stream", line.name, line.shown_status, _count(line.rows), f"{line.seconds:.1f}")
    table.add_section()
    for line in board.of("mart"):
        table.add_row("mart", line.name, line.shown_status, _count(line.rows), "")
    for line in board.of("model"):
        if line.state != "succeeded":
            table.add_row("model", line.name, line.shown_status, "", "")
    table.add_section()
    for check in board.red_checks:
        table.add_row("check", f"{check.name}: {check.check}", f"{check.severity}: {_first(check.message)}", "", "")
    green = len(board.checks) - len(board.red_checks)
    table.add_row("checks", f"{green} of {len(board.checks)} are green", "", "", "")
    console = output.console()
    console.print(table)
    for message in _failures(board):
        console.print(message, markup=False, style="red")
    console.print("\n".join(next_steps), markup=False)


def _count(rows: int | None) -> str:
    return "" if rows is None else f"{rows:,}"


def _first(message: str) -> str:
    return message.strip().splitlines()[0] if message.strip() else "no explanation"


def _failures(board: Board) -> Iterator[str]:
    """Each cause once, with what it is about, in at most six lines."""
    seen: set[str] = set()
    for line in board.lines.values():
        if line.state == "failed" and line.note not in seen:
            seen.add(line.note)
            text = line.note.strip() or "failed without a message; open the run in the UI"
            lines = (text if line.name in _first(text) else f"{line.name}: {text}").splitlines()
            kept = lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], f"... {len(lines)} lines in the log"]
            yield "\n".join(kept)
    yield from board.problems
