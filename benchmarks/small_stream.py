"""Claim: one small stream is in the warehouse seconds after the click.

The stream is the demo's weather, one file of an hour's rows for three airports. `dagster` is all that a click starts:
a new process that imports the code location, loads every definition, and runs the asset with its checks in-process on
the project's own instance (Postgres storage). What the queue adds before it, one second at most, is not in it.
`headwater sync` is the same without Dagster, `headwater --help` the command line alone.

    python -m benchmarks.small_stream [--repeats 3]
"""

import argparse
import gzip
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg

from benchmarks.support import (
    BenchServer,
    Measured,
    Target,
    bench_server,
    measure,
    repeated,
    report,
)
from platform_assets.settings import PROJECT_ROOT

CLAIM = "One small stream: at most 6 seconds from the click to success"
STREAM = ("nyc_weather", "weather")
HEADER = "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        materialize()
        return
    with bench_server() as server, tempfile.TemporaryDirectory(prefix="headwater-bench-") as temporary:
        bench = _Bench(server, Path(temporary))
        paths: dict[str, Callable[[], Measured]] = {
            "dagster": bench.dagster,
            "headwater_sync": bench.sync,
            "headwater_help": lambda: bench.run("-m", "platform_assets.cli", "--help"),
        }
        outcomes = [
            repeated(path, options.repeats, run, bench.difference if path != "headwater_help" else str)
            for path, run in paths.items()
        ]
    targets = [Target("seconds from the click to success", outcomes[0].seconds, 6.0)]
    report("small_stream", "3 rows of one file", outcomes, targets, claim=CLAIM, rows=3)


class _Bench:
    """A warehouse with Dagster's storage, and a folder that gets one more file before each sync."""

    def __init__(self, server: BenchServer, folder: Path) -> None:
        self._folder = folder
        self._dsn = server.url(server.database)
        self._turn = 0
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("HEADWATER_", "DAGSTER_"))
        } | {
            "HEADWATER_HOME": str(server.home),
            "DAGSTER_HOME": str(PROJECT_ROOT),
            "WEATHER_FILES": str(folder),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }

    def _deliver(self) -> None:
        self._turn += 1
        time_hour = f"2013-01-{self._turn:02}T00:00:00Z"
        lines = [
            f"{origin},2013,1,{self._turn},0,39.0,26.1,59.4,270,10.4,NA,0.0,1012.0,10.0,{time_hour}"
            for origin in ("EWR", "JFK", "LGA")
        ]
        path = self._folder / f"weather_2013-01-{self._turn:02}.csv.gz"
        path.write_bytes(gzip.compress("\n".join([HEADER, *lines, ""]).encode()))

    def run(self, *arguments: str) -> Measured:
        return measure([sys.executable, *arguments], self._environment, PROJECT_ROOT)

    def dagster(self) -> Measured:
        self._deliver()
        return self.run("-m", "benchmarks.small_stream", "--child")

    def sync(self) -> Measured:
        self._deliver()
        return self.run("-m", "platform_assets.cli", "sync", ".".join(STREAM))

    def difference(self) -> str:
        with psycopg.connect(self._dsn) as session:
            found = session.execute("select count(*) from raw_nyc_weather.weather").fetchone()
        return "" if found == (3 * self._turn,) else f"{found} rows of {3 * self._turn}"


def materialize() -> None:
    """What a run's process does, from its first import to the run's success."""
    import dagster as dg

    from platform_assets.ingest import location

    with dg.DagsterInstance.get() as instance:
        job = location(PROJECT_ROOT).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(STREAM)], raise_on_error=True)
        assert result.success


if __name__ == "__main__":
    main()
