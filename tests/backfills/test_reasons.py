"""What sensors find, and what becomes of it: each reason on a ledger that shows it."""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import psycopg
import pytest
import yaml

from connectors.specs import BackfillSpec, SourceSpec, parse_source
from platform_assets.assets.resources import WarehouseResource
from platform_assets.backfills import store
from platform_assets.backfills.reasons import NAMES
from platform_assets.backfills.reasons.new_files import days_in
from platform_assets.backfills.suggest import Suggestion, suggest
from platform_assets.components.source import source_definitions
from platform_assets.sensors.backfills import replay_job
from platform_assets.warehouse import Warehouse
from tests.ingest.shop import SOURCE
from tests.support.scripted import records, source, sync

TODAY = datetime.now(UTC).date()
DAYS = 10
PARTITIONS = f"      partitions: {{by: day, start: {TODAY - timedelta(days=DAYS)}}}\n"
OK = {"name": "reconcile", "passed": True, "explanation": "", "severity": "warn", "blocking": False, "measured": {}}


def day(number: int) -> str:
    """The key of a partition, counted back: 1 is yesterday, the newest."""
    return str(TODAY - timedelta(days=number))


@dataclass(slots=True)
class Ledger:
    """The shop's orders as the ledger has them."""

    connection: psycopg.Connection[Any]
    text: str = PARTITIONS

    @property
    def source(self) -> SourceSpec:
        return parse_source(yaml.safe_load(SOURCE + self.text)["attributes"], "shop.yaml")

    def declare(self, **backfill: Any) -> None:
        self.text = PARTITIONS + f"      backfill: {json.dumps(backfill)}\n"

    def read(
        self, *numbers: int, failure: str | None = None, verdicts: Sequence[dict[str, Any]] = (), ago: str = "0 s",
    ) -> None:  # fmt: skip
        """Syncs of these days."""
        for number in numbers:
            self.connection.execute(
                """
                insert into ops.syncs (sync_id, source, stream, kind, trigger, epoch, window_start, window_end,
                    started_at, finished_at, step, status, failure_class, message, verdicts)
                values (gen_random_uuid(), 'shop', 'orders', 'rest', 'backfill', 1, %(day)s, %(day)s + interval '1 day',
                    clock_timestamp() - %(ago)s::interval, clock_timestamp(), 'done',
                    case when %(failure)s::text is null then 'succeeded' else 'failed' end, %(failure)s, 'HTTP 500',
                    %(verdicts)s::jsonb)
                """,
                {
                    "day": datetime.combine(date.fromisoformat(day(number)), datetime.min.time(), UTC),
                    "failure": failure, "verdicts": json.dumps(list(verdicts)), "ago": ago,
                },
            )  # fmt: skip

    def look(self, *names: str, launch: bool = False) -> list[Suggestion]:
        return suggest(self.connection, [self.source], names=names or NAMES, launch=launch)

    def launched(self) -> list[tuple[str, list[str]]]:
        """Title and partitions of every backfill, oldest first."""
        found = reversed(store.several(self.connection, is_open=False))
        return [(item.title, [window.partition for window in store.windows(self.connection, item)]) for item in found]

    def end(self) -> None:
        """Every backfill is over, and long ago."""
        self.connection.execute("update ops.backfill_windows set is_open = false")
        self.connection.execute(
            "update ops.backfills set state = 'finished', ended_at = now(), created_at = created_at - interval '2 days'"
        )


@pytest.fixture
def ledger(warehouse: Warehouse) -> Generator[Ledger]:
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        connection.execute("set time zone 'UTC'")
        yield Ledger(connection)


def found(suggestions: Sequence[Suggestion]) -> list[tuple[str, tuple[str, ...]]]:
    return [(item.why, item.partitions) for item in suggestions]


def test_the_reasons_are_those_of_the_source_file() -> None:
    annotation = BackfillSpec.model_fields["reasons"].annotation
    assert get_args(get_args(annotation)[0]) == NAMES


def test_nothing_launches_unless_the_file_names_the_reason(ledger: Ledger) -> None:
    (suggestion,) = ledger.look("missing")

    assert suggestion.is_due
    assert suggestion.action == "off: add missing to backfill.reasons"
    assert ledger.look("missing", launch=True) == []
    assert ledger.launched() == []


def test_missing_windows_are_launched_newest_first_up_to_the_days_bound_and_then_wait(ledger: Ledger) -> None:
    ledger.declare(reasons=["missing"], daily_windows=3)
    ledger.read(2, 4)

    (dry,) = ledger.look("missing")
    (suggestion,) = ledger.look("missing", launch=True)

    # without the newest, which the schedule reads
    assert suggestion.partitions == dry.partitions == (day(3), day(5), day(6))
    assert dry.action == "its sensor launches it"
    assert suggestion.action == f"launched as backfill {suggestion.backfill_id}"
    assert ledger.launched() == [("shop.orders missing: never read", [day(3), day(5), day(6)])]
    (again,) = ledger.look("missing", launch=True)
    assert "cools down until" in again.action
    ledger.connection.execute("update ops.backfills set created_at = now() - interval '7 hours'")
    ledger.connection.execute("update ops.backfills set created_at = greatest(created_at, date_trunc('day', now()))")
    ledger.declare(reasons=["missing"], daily_windows=3, cool_down="PT0S")
    (again,) = ledger.look("missing", launch=True)
    assert again.action == "today's 3 windows are launched already (daily_windows)"
    assert len(ledger.launched()) == 1


@pytest.mark.parametrize("failure", ["config", "auth", "contract", "source"])
def test_a_permanent_failure_is_not_tried_again_until_the_stream_works(ledger: Ledger, failure: str) -> None:
    ledger.read(*range(2, DAYS))
    ledger.read(DAYS, failure=failure)
    assert ledger.look("missing") == []

    ledger.read(1)

    assert found(ledger.look("missing")) == [("never read", (day(DAYS),))]


def test_a_passing_failure_is_tried_again_but_not_for_ever(ledger: Ledger) -> None:
    ledger.read(*range(2, DAYS))
    ledger.read(DAYS, failure="transient")
    assert len(ledger.look("missing")) == 1
    for _ in range(4):
        ledger.read(DAYS, failure="transient")
    assert ledger.look("missing") == []


def test_a_window_that_does_not_agree_with_the_source_is_read_again_once(ledger: Ledger) -> None:
    ledger.declare(reasons=["late"], cool_down="PT0S")
    ledger.read(1, 2, 3, verdicts=[OK])
    ledger.read(3, verdicts=[OK | {"passed": False, "explanation": "the source says 6 rows, 4 were read"}])

    ledger.look("late", launch=True)

    assert ledger.launched() == [
        ("shop.orders late: reconciliation: the source says 6 rows, 4 were read", [day(3)])
    ]  # fmt: skip
    ledger.end()
    (again,) = ledger.look("late", launch=True)
    assert again.action == "acted on before"
    ledger.read(3, verdicts=[OK])
    assert ledger.look("late") == []


NAMED = OK | {"name": "amounts", "passed": False, "explanation": "the source says 6.00, 4.00 were read"}


@pytest.mark.parametrize(
    ("reason", "verdict"), [("late", NAMED), ("failed_checks", OK | {"name": "volume_anomaly", "passed": False})]
)
def test_a_window_that_no_read_mends_is_given_up_until_its_check_passes(
    ledger: Ledger, reason: str, verdict: dict[str, Any]
) -> None:
    checks = "[{type: reconcile, name: amounts, against: sum(amount)}]"
    ledger.declare(reasons=[reason], cool_down="PT0S")
    ledger.text += f"      checks: {checks}\n"

    def look() -> str:
        """The window is read again in vain, another one passes, and then the reason looks."""
        ledger.read(3, verdicts=[verdict])
        ledger.read(1, verdicts=[verdict | {"passed": True}])
        (suggestion,) = ledger.look(reason, launch=True)
        ledger.connection.execute("update ops.backfill_windows set is_open = false")
        return suggestion.action

    actions = [look() for _ in range(6)]

    assert [partitions for _, partitions in ledger.launched()] == [[day(3)]] * 5
    assert actions[5] == f"given up: 5 reads mended nothing; {day(3)}"
    ledger.read(3, verdicts=[verdict | {"passed": True}])
    assert look().startswith("launched")


def test_rows_of_the_sources_changes_name_the_windows_to_read_again(ledger: Ledger) -> None:
    ledger.declare(reasons=["late"], cool_down="PT0S", corrections={"stream": "changes", "field": "order_at"})
    ledger.read(1, 2, 3, 4)
    ledger.connection.execute("create schema raw_shop")
    assert ledger.look("late") == []
    ledger.connection.execute("create table raw_shop.changes (order_at timestamptz, _synced_at timestamptz)")

    def change(number: int) -> None:
        ledger.connection.execute(
            "insert into raw_shop.changes values (%s, clock_timestamp())", [f"{day(number)}T12:00:00Z"]
        )

    change(3)
    change(4)
    change(DAYS + 5)
    # what changed before a window was read is in it
    ledger.read(4)
    ledger.look("late", launch=True)

    assert ledger.launched() == [("shop.orders late: 3 changes in changes", [day(3)])]
    ledger.end()
    assert ledger.look("late", launch=True) == []
    change(2)
    assert [item.partitions for item in ledger.look("late", launch=True)] == [(day(2),)]


def test_changes_that_found_no_room_today_are_not_forgotten(ledger: Ledger) -> None:
    ledger.declare(
        reasons=["late"], cool_down="PT0S", daily_windows=1, corrections={"stream": "changes", "field": "at"}
    )
    ledger.read(1, 2, 3)
    ledger.connection.execute("create schema raw_shop")
    ledger.connection.execute("create table raw_shop.changes (at timestamptz, _synced_at timestamptz)")
    ledger.connection.execute(
        "insert into raw_shop.changes values (%s, clock_timestamp()), (%s, clock_timestamp())",
        [f"{day(2)}T12:00:00Z", f"{day(3)}T12:00:00Z"],
    )

    ledger.look("late", launch=True)
    ledger.end()
    ledger.look("late", launch=True)

    assert [partitions for _, partitions in ledger.launched()] == [[day(2)], [day(3)]]


DRIFT = OK | {"name": "schema_drift", "passed": False}


def test_windows_that_failed_a_check_are_read_again_when_it_is_accepted_or_passes(ledger: Ledger) -> None:
    volume = OK | {"name": "volume_anomaly", "passed": False}
    ledger.read(2, 3, verdicts=[DRIFT])
    ledger.read(4, verdicts=[volume])
    assert ledger.look("failed_checks") == []

    ledger.connection.execute(
        "insert into ops.schema_versions (source, stream, version, columns, decision, decided_at) "
        "values ('shop', 'orders', 2, '[]', 'accepted', clock_timestamp())"
    )
    assert found(ledger.look("failed_checks")) == [("schema_drift had failed, version 2 accepted", (day(2), day(3)))]

    ledger.read(1, verdicts=[volume | {"passed": True}])
    whys = {item.why.partition(" in sync")[0]: item.partitions for item in ledger.look("failed_checks")}
    assert whys == {
        "schema_drift had failed, version 2 accepted": (day(2), day(3)),
        "volume_anomaly had failed, passed again": (day(4),),
    }
    ledger.declare(reasons=["failed_checks"], cool_down="PT0S")
    ledger.look("failed_checks", launch=True)
    ledger.end()
    assert [item.action for item in ledger.look("failed_checks", launch=True)] == ["acted on before"] * 2


def test_history_is_filled_with_a_column_that_came_later(ledger: Ledger) -> None:
    ledger.declare(reasons=["new_columns"], daily_windows=2, cool_down="PT0S")
    ledger.read(2, 3, 4)
    change = {"change": "new", "column": "colour", "before": None, "after": "text", "action": "added"}
    # the window that brought it needs no second read
    ledger.read(1)
    ledger.connection.execute(
        "insert into ops.schema_versions (source, stream, version, columns, diff, decision, first_seen_at, sync_id) "
        "select 'shop', 'orders', 2, '[]', %s, 'evolved', clock_timestamp(), sync_id "
        "from ops.syncs order by started_at desc limit 1",
        [json.dumps([change])],
    )

    ledger.look("new_columns", launch=True)
    # the next day: what the bound had cut off, and nothing twice
    ledger.end()
    ledger.look("new_columns", launch=True)
    ledger.end()

    title = "shop.orders new_columns: new in schema version 2: colour"
    assert ledger.launched() == [(title, [day(2), day(3)]), (title, [day(4)])]
    assert [item.action for item in ledger.look("new_columns", launch=True)] == ["acted on before"]


def test_a_changed_mapping_reads_history_again_and_replays_quarantine(ledger: Ledger) -> None:
    ledger.declare(reasons=["contract"])
    ledger.read(1, 2)
    ledger.connection.execute(
        "insert into ops.quarantine (source, stream, sync_id, reason, payload, payload_sha256, position) "
        "select 'shop', 'orders', sync_id, 'bad', '{}', '', 'page 1' from ops.syncs limit 1"
    )
    assert ledger.look("contract", launch=True) == []

    # words are not part of a contract, types are
    plain = ledger.text
    ledger.text = plain + "      description: Orders of the shop.\n"
    assert ledger.look("contract", launch=True) == []
    ledger.text = plain + '      null_values: ["NA"]\n'
    replay, reread = ledger.look("contract", launch=True)

    assert (replay.held, replay.is_due, replay.action) == (1, True, "asked for a replay of 1 records")
    assert reread.partitions == (day(1), day(2))
    ledger.end()
    assert [item.action for item in ledger.look("contract", launch=True) if not item.held] == ["acted on before"]


def test_a_silence_of_webhooks_is_filled_from_the_api(ledger: Ledger) -> None:
    ledger.declare(reasons=["webhook_gaps"], cool_down="PT0S", webhook_gaps={"source": "hooks", "longer_than": "PT6H"})
    ledger.read(1, 2, 3, 4, ago="30 days")
    for number, hour in ((4, 1), (4, 5), (4, 9), (4, 14), (2, 3), (2, 8), (2, 13)):
        ledger.connection.execute(
            "insert into ops.webhook_inbox (delivery_id, source, event_type, body, received_at) "
            "values (gen_random_uuid()::text, 'hooks', 'push', '', %s)",
            [f"{day(number)}T{hour:02}:00:00Z"],
        )

    (suggestion,) = ledger.look("webhook_gaps")

    assert suggestion.partitions == (day(2), day(3), day(4))
    assert suggestion.why == f"no delivery of hooks from {day(4)} 14:00 to {day(2)} 03:00 UTC"
    ledger.look("webhook_gaps", launch=True)
    ledger.end()
    assert [item.action for item in ledger.look("webhook_gaps", launch=True)] == ["acted on before"]
    ledger.read(2, 3, 4)
    assert ledger.look("webhook_gaps") == []


FILES = """\
type: platform_assets.components.Source
attributes:
  source: drop
  owner: team:data
  connector: {{kind: files, url: "file://{folder}"}}
  streams:
    - name: sales
      path: sales_*.csv
      primary_key: [id]
      write: merge
      backfill: {{reasons: [new_files], cool_down: PT0S}}
"""


def test_new_files_mean_a_live_sync_or_the_windows_of_their_names(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FILES.format(folder=tmp_path)
    partitioned = text + f"      cursor: {{field: at}}\n{PARTITIONS}"

    def look(attributes: str) -> list[Suggestion]:
        source = parse_source(yaml.safe_load(attributes)["attributes"], "drop.yaml")
        return suggest(ledger.connection, [source], names=["new_files"], launch=True)

    (tmp_path / f"sales_{day(5)}.csv").write_text("id,at\n")
    assert look(partitioned) == []
    (tmp_path / f"sales_{day(3)}.csv").write_text("id,at\n")
    assert [item.partitions for item in look(partitioned)] == [(day(3),)]
    assert look(partitioned) == []

    ledger.connection.execute("update ops.backfill_marks set mark = '{\"modified_ns\": 1}'")
    (live,) = look(text)
    assert (live.is_live, live.is_due, live.why) == (True, True, "2 new files")


@pytest.mark.parametrize(
    ("name", "span"),
    [
        ("sales_2024-01-31.csv", (date(2024, 1, 31), date(2024, 1, 31))),
        ("2023/12/sales_20240131.csv.gz", (date(2024, 1, 31), date(2024, 1, 31))),
        ("weather_2013_02.csv", (date(2013, 2, 1), date(2013, 2, 28))),
        ("weather_2013_12.csv", (date(2013, 12, 1), date(2013, 12, 31))),
        ("sales_20240230.csv", None),
        ("customers.csv", None),
    ],
)
def test_a_files_name_tells_its_days(name: str, span: tuple[date, date] | None) -> None:
    assert days_in(name) == span


@pytest.mark.parametrize("mark", ["{not json", "[1, 2]", '{"synced_at": "yesterday"}'])
def test_a_broken_cursor_is_told_and_looking_starts_over(ledger: Ledger, mark: str) -> None:
    ledger.declare(reasons=["late"], cool_down="PT0S", corrections={"stream": "changes", "field": "at"})
    ledger.read(2)
    ledger.connection.execute("create schema raw_shop")
    ledger.connection.execute("create table raw_shop.changes (at timestamptz, _synced_at timestamptz)")
    ledger.connection.execute("insert into raw_shop.changes values (%s, clock_timestamp())", [f"{day(2)}T12:00:00Z"])
    ledger.connection.execute("insert into ops.backfill_marks values ('late', 'shop', 'orders', %s)", [mark])

    told, launched = ledger.look("late", launch=True)

    assert "the cursor of late" in told.why
    assert "it starts over" in told.action
    assert launched.partitions == (day(2),)
    assert ledger.look("late", launch=True) == []


def test_a_stream_that_cannot_be_looked_at_keeps_no_other_from_it(ledger: Ledger) -> None:
    broken = parse_source(yaml.safe_load(FILES.format(folder="/nowhere/at/all"))["attributes"], "drop.yaml")
    ledger.declare(reasons=["missing"])

    first, second = suggest(ledger.connection, [broken, ledger.source], names=["new_files", "missing"], launch=True)

    assert (first.label, first.why) == ("drop.sales", "could not look")
    assert second.backfill_id is not None


def test_the_sensor_of_a_reason_explains_itself_in_its_tick(
    ledger: Ledger, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    ledger.declare(reasons=["missing", "contract"], daily_windows=2)
    sensors = {sensor.name: sensor for sensor in source_definitions(ledger.source, "shop.yaml").sensors or ()}
    assert set(sensors) == {"shop__backfill_missing", "shop__backfill_contract"}

    def tick(name: str) -> Any:
        with dg.build_sensor_context(resources={"warehouse": WarehouseResource()}) as context:
            return sensors[name].evaluate_tick(context)  # pyright: ignore[reportAttributeAccessIssue]  a sensor of ours

    first = tick("shop__backfill_missing").skip_message
    (backfill,) = store.several(ledger.connection, is_open=True)
    assert first == f"shop.orders: 2 windows, never read: launched as backfill {backfill.backfill_id}"
    assert "cools down until" in tick("shop__backfill_missing").skip_message
    assert tick("shop__backfill_contract").skip_message == "nothing is due for contract"

    ledger.read(1)
    ledger.connection.execute(
        "insert into ops.quarantine (source, stream, sync_id, reason, payload, payload_sha256, position) "
        "select 'shop', 'orders', sync_id, 'bad', '{}', '', 'page 1' from ops.syncs limit 1"
    )
    ledger.connection.execute('update ops.backfill_marks set mark = \'{"fingerprint": "another"}\'')
    (request,) = tick("shop__backfill_contract").run_requests
    assert request.run_config == {"ops": {"replay": {"config": {"stream": "orders"}}}}
    assert request.run_key.startswith("shop.orders:contract ")


def test_a_replay_loads_what_was_held_under_the_old_contract(
    warehouse: Warehouse, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    columns = {"amount": {"type": "bigint"}}
    held = sync(warehouse.loader_dsn, [records({"id": 1, "amount": "NA"})], columns=columns)
    assert held.rows.quarantined == 1

    spec = source(columns=columns, null_values=["NA"])
    result = replay_job(spec).execute_in_process(
        run_config={"ops": {"replay": {"config": {"stream": "things"}}}}, resources={"warehouse": WarehouseResource()}
    )

    assert result.success
    with psycopg.connect(warehouse.admin_dsn) as session:
        assert session.execute("select status from ops.quarantine").fetchall() == [("replayed",)]
        assert session.execute("select trigger from ops.syncs order by started_at").fetchall() == [
            ("cli",),
            ("replay",),
        ]
