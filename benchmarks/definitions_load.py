"""CPU seconds to load the ingest location with 500 streams in a fresh process: import, files, definitions, repository.

Prints one JSON line. Target: under 1.6 CPU seconds, with no dlt, dbt, pyarrow or httpx among the imported modules.

    python benchmarks/definitions_load.py [--sources 50] [--streams 10] [--runs 5] [--every-check]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
TARGET_CPU_SECONDS = 1.6
HEAVY = ("dlt", "dbt", "pyarrow", "httpx", "dagster_dbt", "dagster_dlt", "dagster_sling", "sling", "psycopg", "pandas")

SOURCE = """\
type: platform_assets.components.Source
attributes:
  source: source_{number}
  owner: team:data
  connector: {{kind: rest, base_url: env:SOURCE_URL, auth: {{type: bearer, token: env:SOURCE_TOKEN}},
              rate_limit: {{pool: pool_{number}, requests: 50, per: PT1S}}}}
  defaults: {{schedule: "@hourly", freshness: {{warn_after: PT2H, fail_after: PT6H}}}}
  streams:
"""
STREAM = """\
    - name: stream_{number}
      path: /stream_{number}
      primary_key: [carrier, flight, origin, time_hour]
      cursor: {{field: time_hour, lag: PT1H}}
      write: merge
      drift: {{new: evolve, missing: warn, retyped: quarantine}}
      columns: {{tailnum: {{description: aircraft registration}}}}
      checks: [{{type: volume_anomaly}}]
"""
EVERY_CHECK = """\
      checks:
        - {{type: volume_anomaly, sensitivity: 6}}
        - {{type: schema_drift}}
        - {{type: quarantine, max_share: 0.01}}
        - {{type: freshness_data, fail_after: PT6H}}
        - {{type: reconcile}}
        - {{type: reconcile, name: amounts, against: sum(distance)}}
        - {{type: row_rule, column: distance, min: 0}}
        - {{type: reference, column: carrier, to: stream_0.carrier, lag: PT1H}}
        - {{type: duplicate_keys}}
        - {{type: late_data}}
        - {{type: error_rate}}
        - {{type: slow_run}}
"""
CHILD = """
import json, sys, time
from pathlib import Path
import dagster as dg
from platform_assets.assets.resources import ingest_resources
from platform_assets.components.loading import ingest_definitions
defs = dg.Definitions.merge(
    ingest_definitions(Path(sys.argv[1])),
    dg.Definitions(resources=ingest_resources(), executor=dg.in_process_executor),
)
assets = len(list(defs.get_repository_def().asset_graph.materializable_asset_keys))
print(json.dumps({"cpu": time.process_time(), "assets": assets, "modules": sorted(sys.modules)}))
"""


def write_sources(root: Path, sources: int, streams: int, *, has_every_check: bool = False) -> None:
    """A project root with `sources` files of `streams` streams each."""
    stanza = STREAM.replace("      checks: [{{type: volume_anomaly}}]\n", EVERY_CHECK) if has_every_check else STREAM
    for source in range(sources):
        folder = root / "platform_assets" / "defs" / "ingest" / f"source_{source}"
        folder.mkdir(parents=True)
        body = "".join(stanza.format(number=stream) for stream in range(streams))
        (folder / "defs.yaml").write_text(SOURCE.format(number=source) + body, encoding="utf-8")


def load_once(root: Path) -> dict[str, object]:
    """One load in a fresh process with an empty environment."""
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(root)}
    command = [sys.executable, "-c", CHILD, str(root)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=50)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--every-check", action="store_true", help="twelve checks a stream, of every type")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_sources(root, options.sources, options.streams, has_every_check=options.every_check)
        loads = [load_once(root) for _ in range(options.runs)]
    cpu = sorted(round(float(str(load["cpu"])), 3) for load in loads)
    modules = [str(name) for name in loads[0]["modules"]]  # type: ignore[union-attr]  # JSON of our own child
    heavy = sorted({name.partition(".")[0] for name in modules} & set(HEAVY))
    print(
        json.dumps(
            {
                "benchmark": "definitions_load",
                "streams": loads[0]["assets"],
                "cpu_seconds": median(cpu),
                "cpu_seconds_all": cpu,
                "target_cpu_seconds": TARGET_CPU_SECONDS,
                "modules_imported": len(modules),
                "heavy_modules": heavy,
                "passed": median(cpu) < TARGET_CPU_SECONDS and not heavy,
            }
        )
    )


if __name__ == "__main__":
    main()
