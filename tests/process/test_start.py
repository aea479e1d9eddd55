"""What is done before a program is started: as little as can be."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from connectors.contract import JsonRecords, ReadContext, StreamState
from connectors.process.connector import Alone, ProcessConnector
from connectors.registry import kind
from tests.support.tapping import Tap


def test_dlt_is_not_imported_before_the_source_is_asked() -> None:
    """It takes half of the imports; the first package brings it, while the source already answers."""
    code = "import sys, connectors.sync.together; sys.exit('dlt' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0


class _Kept(Alone):
    """What a run has kept can be read at once, as from `ops.pieces`. seen: whether the process had been started."""

    def __init__(self, context: ReadContext, source: str) -> None:
        super().__init__(context)
        self._source = source
        self.seen: list[bool] = []

    def backlog(self, stream: str, after: int) -> Iterator[tuple[int, bytes]]:
        self.seen.append(any(thread.name == f"process of {self._source}" for thread in threading.enumerate()))
        return iter(())


def test_what_an_earlier_run_has_kept_is_looked_for_before_the_process_starts(tmp_path: Path) -> None:
    """Or what this run keeps would come twice: from there and from the process."""
    (tmp_path / "program").mkdir()
    shop = Tap("", "", tmp_path / "program", {"orders": {}})
    spec = shop.spec({"tables": {"orders": 5}, "shared": True})
    context = ReadContext(window=None, folder=tmp_path)
    common = _Kept(context, shop.name)
    connector = cast("ProcessConnector", kind("singer").open(spec))
    member = connector.together(spec.streams, common)["orders"]
    read = list(member.read(spec.streams[0], StreamState(), context))
    assert sum(message.body.count(b'"n"') for message in read if isinstance(message, JsonRecords)) == 5
    assert common.seen == [False]
