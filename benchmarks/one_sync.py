"""One sync in a process of its own: `python -m benchmarks.one_sync <source.json> <loader dsn> [warm]`.

Prints one JSON line: rows, seconds by step, seconds of the sync without Python's start, peak memory. It imports nothing
that a sync does not; warm: all of that before the sync begins, as where another sync has run in the process before.
"""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.specs import SourceSpec


def main(arguments: Sequence[str]) -> None:
    from connectors.specs import parse_source
    from connectors.sync import SyncRequest, sync

    path, dsn, *warm = arguments
    spec = parse_source(json.loads(Path(path).read_text(encoding="utf-8")), path)
    if warm:
        _import_all(spec)
    result = sync(SyncRequest(spec, spec.streams[0]), dsn)
    told = {
        "rows": result.rows.loaded,
        "seconds": round(result.seconds, 3),
        "steps": {name: round(seconds, 3) for name, seconds in result.step_seconds.items()},
        "peak_bytes": result.peak_memory_bytes,
    }
    print(json.dumps(told))


def _import_all(spec: "SourceSpec") -> None:
    from connectors.registry import kind
    from connectors.sync.package import prepare

    prepare()
    for name in ("lifecycle", "decode", "copy_text"):
        import_module(f"connectors.sync.{name}")
    with kind(spec.connector.kind).open(spec):
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
