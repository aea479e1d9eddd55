"""The worker process (demo_worker) as the demo holds it."""

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, cast

from platform_assets.cli.children import end_child
from platform_assets.cli.demo_events import Anything, Configure, decode, encode

POLL_SECONDS = 0.4
END_SECONDS = 90.0
"""How long the worker may take to end its runs when the demo is stopped."""


class DagsterProcess:
    """A worker in a process group of its own; leaving the block ends it, its code servers and its runs."""

    def __init__(self, workspace: Path, log_path: Path) -> None:
        self.log_path = log_path
        self._workspace = workspace

    def __enter__(self) -> "DagsterProcess":
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own module
                [sys.executable, "-m", "platform_assets.cli.demo_worker", "--workspace", str(self._workspace)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._workspace.parent,
                # Ctrl-C reaches the demo alone, which then ends the runs in order
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def configure(self, environment: Mapping[str, str]) -> None:
        """Let it begin; these variables join the environment of every run."""
        line = cast("IO[bytes]", self._process.stdin)
        try:
            line.write(encode(Configure(dict(environment))))
            line.flush()
        except BrokenPipeError:
            return  # it has ended already: the end of its events and its exit status say so

    def events(self) -> Iterator[Anything | None]:
        """Everything the worker tells, in order; None now and then while it is silent. Ends when the worker does."""
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=POLL_SECONDS)
            except queue.Empty:
                yield None
                continue
            if line is None:
                return
            yield decode(line)

    def finish(self) -> int:
        """Close the line, which ends runs that are still going; the worker's exit status."""
        return end_child(self._process, END_SECONDS)

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"

    def _read(self, lines: "queue.SimpleQueue[bytes | None]") -> None:
        for line in cast("IO[bytes]", self._process.stdout):
            lines.put(line)
        lines.put(None)
