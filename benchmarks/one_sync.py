"""One sync in a process of its own: `python -m benchmarks.one_sync <source.json> <loader dsn>`.

Prints one JSON line: rows, seconds by step, seconds of the sync without the imports, peak memory. It imports nothing
that a sync does not.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    from connectors.specs import parse_source
    from connectors.sync import SyncRequest, sync

    path, dsn = arguments
    spec = parse_source(json.loads(Path(path).read_text(encoding="utf-8")), path)
    result = sync(SyncRequest(spec, spec.streams[0]), dsn)
    told = {
        "rows": result.rows.loaded,
        "seconds": round(result.seconds, 3),
        "steps": {name: round(seconds, 3) for name, seconds in result.step_seconds.items()},
        "peak_bytes": result.peak_memory_bytes,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
