"""The whole platform as an operator has it: a copy of the project under `dagster dev`, seen and worked by its UI."""

import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from demo.dataset import FIRST_DAY
from demo.misbehaviour import Misbehaviour
from demo.release import Release
from demo.stack import DemoStack
from platform_assets.sources import FOLDER
from platform_assets.warehouse import Warehouse
from scripts import screenshots
from tests.backfills.conftest import kill_all
from tests.scenarios import graphql

FLIGHTS = "nyc_flights/flights"
OF_FLIGHTS = {
    "staging/stg_nyc_flights__flights",
    "intermediate/int_flights_joined_planes",
    "intermediate/int_flights_joined_weather",
    "marts/flights",
    "marts/routes",
    "marts/carrier_days",
}
DECLARED = """\
      partitions: {{by: day, start: 2013-01-01, timezone: America/New_York}}
      retries: 0
      backfill:
        reasons: [late, failed_checks, new_columns]
        cool_down: PT1S
        daily_windows: 200
        corrections: {{stream: corrections, field: day}}
      checks:
        - {{type: reconcile}}
        - {{type: volume_anomaly, minimum: 3}}
        - {{type: late_data}}
        - {{type: freshness_data, fail_after: PT{hours}H}}
    - name: corrections
      path: /corrections
      records: data
      primary_key: day
      write: merge
      schedule: null
      columns:
        day: {{type: timestamp, nullable: false, description: A moment of a day that was corrected}}
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run left in the event log. red: checks that failed, by `source/stream`; partitions: materialized."""

    run_id: str
    succeeded: bool
    red: Mapping[str, frozenset[str]]
    materialized: frozenset[str]
    partitions: tuple[str, ...]


@dataclass
class Platform:
    """root: the copy of the project. day: the last day that the API shows. usual: what it does by now for good.

    history: the backfill of the first days.
    """

    root: Path
    env: Mapping[str, str]
    url: str
    stack: DemoStack
    warehouse: Warehouse
    instance: dg.DagsterInstance
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)
    usual: dict[str, Any] = field(default_factory=dict[str, Any])
    day: date = FIRST_DAY
    history: str = ""

    def misbehave(self, **misbehaviour: Any) -> None:
        """From now on the API does this wrong, and nothing else but what became usual."""
        self.misbehaviour = Misbehaviour(**(self.usual | misbehaviour))
        self.stack.release(Release(self.day, self.misbehaviour))

    def next_day(self) -> str:
        """Another day is out; its partition."""
        self.day += timedelta(days=1)
        self.stack.release(Release(self.day, self.misbehaviour))
        return self.day.isoformat()

    def declare(self, newest: date) -> None:
        """The source file; data older than the noon of this day are stale."""
        path = self.root / FOLDER / "nyc_flights" / "defs.yaml"
        text = path.read_text(encoding="utf-8").partition("      partitions:")[0].partition("      checks:")[0]
        age = datetime.now(UTC) - datetime(newest.year, newest.month, newest.day, 12, tzinfo=UTC)
        path.write_text(
            text.replace("size: 1000}", "size: 200}") + DECLARED.format(hours=age // timedelta(hours=1)),
            encoding="utf-8",
        )

    def headwater(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "platform_assets.cli", *words],
            cwd=self.root, env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.warehouse.admin_dsn, autocommit=True) as session:
            return session.execute(query.encode(), values or None).fetchall()

    def read_history(self, days: int) -> str:
        """The first days as a backfill of the UI, no correction so far, and all that follows; the backfill's id."""
        since = self.now()
        partitions = [(FIRST_DAY + timedelta(days=number)).isoformat() for number in range(days)]
        backfill_id = graphql.launch_backfill(self.url, FLIGHTS, partitions)
        self.sync(asset="nyc_flights/corrections")
        self.windows(since)
        self.built(since)
        return backfill_id

    def sync(self, partition: str | None = None, asset: str = FLIGHTS) -> Seen:
        """What a click on "Materialize" does: the run, after it has ended."""
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        run_id = graphql.launch(self.url, "ingest", [asset], tags)
        self.wait_for(lambda: self._run(run_id).is_finished, f"the run of {asset} to end")
        return self.seen(run_id)

    def build(self, *assets: str) -> Seen:
        """The same click on models."""
        run_id = graphql.launch(self.url, "transform", assets, [])
        self.wait_for(lambda: self._run(run_id).is_finished, "the models' run to end")
        return self.seen(run_id)

    def report(self, asset: str) -> None:
        """Another stream has been synced."""
        self.instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey(asset.split("/"))))

    def seen(self, run_id: str) -> Seen:
        red: dict[str, frozenset[str]] = {}
        materialized: set[str] = set()
        partitions: list[str] = []
        for entry in self.instance.all_logs(run_id):
            event = entry.dagster_event
            if event is None:
                continue
            if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                found = event.asset_check_evaluation_data
                name = found.asset_key.to_user_string()
                red[name] = red.get(name, frozenset()) | ({found.check_name} if not found.passed else frozenset())
            elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
                told = event.step_materialization_data.materialization
                materialized.add(told.asset_key.to_user_string())
                partitions += [told.partition] if told.partition else []
        red = {name: names for name, names in red.items() if names}
        return Seen(run_id, self._run(run_id).is_success, red, frozenset(materialized), tuple(partitions))

    @contextmanager
    def without(self, sensor: str) -> Generator[None]:
        """While the sensor is switched off, as a person does it in the UI."""
        graphql.stop_sensor(self.url, sensor)
        try:
            yield
        finally:
            graphql.start_sensor(self.url, sensor)

    def red_in_ui(self, asset: str = FLIGHTS) -> set[str]:
        """Checks whose newest evaluation the UI shows as failed."""
        return graphql.red_checks(self.url, asset)

    def reloaded(self, location: str) -> str:
        """Why the code location does not load now; nothing when it does."""
        return graphql.reloaded(self.url, location)

    def picture(self, asset: str, check: str, *texts: str) -> bytes:
        """A check's page as a person sees it, once these texts stand on it."""
        with screenshots.browser() as page:
            page.ask("Page.navigate", url=f"{self.url}/assets/{asset}?view=checks&checkDetail={check}")
            page.wait_for(texts)
            return page.settled_image(None)

    def now(self) -> datetime:
        return self.rows("select clock_timestamp()")[0][0]

    def built(self, since: datetime) -> list[Seen]:
        """The transform runs since then, once automation has nothing more to ask for after the last of them."""
        while True:
            self.wait_for(lambda: not self._unfinished(), "all runs to end")
            ended = time.time()
            self.wait_for_ticks(1)
            if not self._runs_since(ended):
                break
        runs = [self.seen(run.run_id) for run in self._runs_since(since.timestamp()) if _is_of_models(run)]
        return [run for run in runs if run.materialized or run.red]

    def windows(self, since: datetime, count: int = 1) -> Mapping[str, Sequence[str]]:
        """Reason to windows of the backfills that were launched since then, once so many have ended."""
        ended = "select 1 from ops.backfills where created_at > %s and ended_at is not null having count(*) >= %s"
        self.wait_for(lambda: self.rows(ended, since, count), f"{count} backfills to end", 900)
        found = self.rows(
            "select b.reason, array_agg(w.partition order by w.partition) from ops.backfills b"
            " join ops.backfill_windows w using (backfill_id) where b.created_at > %s group by b.backfill_id, b.reason",
            since,
        )
        return dict(found)

    def wait_for_ticks(self, count: int) -> None:
        """Until automation has looked so often from now on."""
        now = time.time()
        self.wait_for(lambda: graphql.ticks_since(self.url, "dbt_automation", now) >= count, f"{count} ticks")

    def wait_for(self, done: Any, what: str, seconds: float = 600.0) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.25)

    def _run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def _unfinished(self) -> Iterable[dg.DagsterRun]:
        unfinished = ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"]
        return self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus(name) for name in unfinished]))

    def _runs_since(self, moment: float) -> Sequence[dg.DagsterRun]:
        return self.instance.get_runs(dg.RunsFilter(created_after=datetime.fromtimestamp(moment, UTC)))


def _is_of_models(run: dg.DagsterRun) -> bool:
    origin = run.remote_job_origin
    return origin is not None and origin.repository_origin.code_location_origin.location_name == "transform"


def everything(runs: Iterable[Seen]) -> set[str]:
    return {asset for run in runs for asset in run.materialized}


@contextmanager
def dagster_dev(root: Path, env: Mapping[str, str], port: int) -> Generator[None]:
    """Webserver, daemon and code servers of the copy, in a process group of their own."""
    with (root.parent / "dagster.log").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)],
            cwd=root, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 600
        while not graphql.answers(f"http://127.0.0.1:{port}"):
            assert process.poll() is None, (root.parent / "dagster.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "dagster dev does not answer"
            time.sleep(0.3)
        yield
    finally:
        process.terminate()
        try:
            process.wait(120)
        finally:
            kill_all(process)
