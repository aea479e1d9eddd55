"""Reasons that look beyond the ledger: contracts, webhooks, files; broken cursors; and the sensors around them."""

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml

from connectors.specs import SourceSpec, parse_source
from platform_assets.assets.resources import WarehouseResource
from platform_assets.backfills import store
from platform_assets.backfills.reasons.new_files import days_in
from platform_assets.backfills.suggest import Suggestion, suggest
from platform_assets.components.source import source_definitions
from platform_assets.sensors.backfills import backfill_sensors, replay_job
from platform_assets.warehouse import Warehouse
from tests.backfills.ledger import PARTITIONS, Ledger, day
from tests.support.scripted import records, source, sync


def test_a_changed_mapping_reads_history_again_and_replays_quarantine(ledger: Ledger) -> None:
    ledger.declare(reasons=["contract"])
    ledger.read(1, 2)
    ledger.hold()
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


def test_a_contract_that_is_changed_back_and_made_again_is_acted_on_again(ledger: Ledger) -> None:
    ledger.declare(reasons=["contract"], cool_down="PT0S")
    first = ledger.text
    second = first + '      null_values: ["NA"]\n'
    ledger.look("contract", launch=True)
    ledger.read(1, 2)

    for text in (second, first, second):
        ledger.text = text
        (suggestion,) = ledger.look("contract", launch=True)
        assert suggestion.partitions == (day(1), day(2))
        ledger.read(1, 2)
        ledger.end()
        assert ledger.look("contract", launch=True) == []


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
    assert ["in backfill" in item.action for item in look(partitioned)] == [True]
    # neither a failed nor a lost read forgets the file
    ledger.connection.execute("update ops.backfill_windows set is_open = false")
    ledger.connection.execute("update ops.backfills set state = 'failed', ended_at = now()")
    assert [item.partitions for item in look(partitioned)] == [(day(3),)]
    ledger.read(3, source="drop", stream="sales")
    ledger.end()
    assert look(partitioned) == []

    ledger.connection.execute("update ops.backfill_marks set mark = '{\"modified_ns\": 1}'")
    (live,) = look(text)
    assert (live.is_live, live.is_due, live.why) == (True, True, "2 new files")


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ("cool_down: PT6H, daily_windows: 9", "cools down until"),
        ("cool_down: PT0S, daily_windows: 1", "today's 1 windows are launched already"),
    ],
)
def test_live_syncs_are_asked_for_within_the_same_bounds_as_windows(
    ledger: Ledger, tmp_path: Path, limits: str, says: str
) -> None:
    text = FILES.format(folder=tmp_path).replace("cool_down: PT0S", limits)
    source = parse_source(yaml.safe_load(text)["attributes"], "drop.yaml")

    def look() -> list[Suggestion]:
        return suggest(ledger.connection, [source], names=["new_files"], launch=True)

    assert look() == []
    (tmp_path / "sales_1.csv").write_text("id\n")
    assert [item.action for item in look()] == ["asked for a live sync"]
    (tmp_path / "sales_2.csv").write_text("id\n")
    for _ in range(2):
        (held,) = look()
        assert (held.is_due, held.action[: len(says)]) == (False, says)
    ledger.connection.execute(
        "update ops.backfill_marks set mark = replace(mark, extract(year from now())::text, '2001') "
        "where reason like '%: asked'"
    )
    assert [item.action for item in look()] == ["asked for a live sync again, after 1 in vain"]


def test_new_files_stay_new_until_a_live_sync_has_read_them(ledger: Ledger, tmp_path: Path) -> None:
    source = parse_source(yaml.safe_load(FILES.format(folder=tmp_path))["attributes"], "drop.yaml")

    def look(*, launch: bool = True) -> list[Suggestion]:
        return suggest(ledger.connection, [source], names=["new_files"], launch=launch)

    assert look() == []
    (tmp_path / "sales_1.csv").write_text("id\n")
    (first,) = look()
    # the daemon was killed before it made the run
    assert [item.is_due for item in look(launch=False)] == [True]
    # its sync failed; a window of its own or a replay would not have read the file
    ledger.sync("drop", "sales", failure="transient")
    (second,) = look()
    ledger.sync("drop", "sales", trigger="replay")
    (tmp_path / "sales_2.csv").write_text("id\n")
    (third,) = look()
    assert [first.why, second.why, third.why] == ["1 new files", "1 new files", "2 new files"]
    assert third.action == "asked for a live sync again, after 2 in vain"
    assert len({first.run_key, second.run_key, third.run_key}) == 3

    for _ in range(2):
        look()
    (daily,) = look()
    assert (daily.is_due, daily.action[:44]) == (False, "asked for 5 times in vain, once a day from n")
    ledger.sync("drop", "sales")
    # the second file may have come while the first was being read
    assert [item.why for item in look()] == ["1 new files"]
    ledger.sync("drop", "sales")
    assert look() == []


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
    assert ["in backfill" in item.action for item in ledger.look("late", launch=True)] == [True]


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
    ledger.declare(reasons=["missing", "contract"], daily_windows=20, cool_down="PT0S")
    sensors = {sensor.name: sensor for sensor in source_definitions(ledger.source, "shop.yaml").sensors or ()}
    assert set(sensors) == {"shop__backfill_missing", "shop__backfill_contract"}

    with dg.DagsterInstance.ephemeral() as instance:

        def tick(name: str) -> Any:
            with dg.build_sensor_context(instance, resources={"warehouse": WarehouseResource()}) as context:
                return sensors[name].evaluate_tick(context)  # pyright: ignore[reportAttributeAccessIssue]  a sensor of ours

        said = tick("shop__backfill_missing").skip_message
        (backfill,) = store.several(ledger.connection, is_open=True)
        assert said == f"shop.orders: 9 windows, never read: launched as backfill {backfill.backfill_id}"
        assert f"in backfill {backfill.backfill_id} already" in tick("shop__backfill_missing").skip_message
        assert tick("shop__backfill_contract").skip_message == "nothing is due for contract"

        ledger.hold()
        ledger.connection.execute('update ops.backfill_marks set mark = \'{"fingerprint": "another"}\'')
        (request,) = tick("shop__backfill_contract").run_requests
        assert request.run_config == {"ops": {"replay": {"config": {"stream": "orders"}}}}
        assert request.run_key.startswith("shop.orders:contract ")
        job, config = replay_job(ledger.source), request.run_config
        instance.create_run_for_job(job, run_config=config, tags=request.tags, status=dg.DagsterRunStatus.STARTED)
        assert "the run that was asked for has not ended" in tick("shop__backfill_contract").skip_message


def test_a_replay_that_failed_is_asked_for_until_one_has_succeeded(
    warehouse: Warehouse, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    settings: dict[str, Any] = {
        "columns": {"amount": {"type": "bigint"}}, "backfill": {"reasons": ["contract"], "cool_down": "PT0S"},
    }  # fmt: skip
    assert sync(warehouse.loader_dsn, [records({"id": 1, "amount": "NA"})], **settings).rows.quarantined == 1
    before, after = source(**settings), source(**settings, null_values=["NA"])
    keys: list[str | None] = []

    with (
        dg.DagsterInstance.ephemeral() as instance,
        psycopg.connect(warehouse.loader_dsn, autocommit=True) as other,
    ):

        def tick(spec: SourceSpec) -> Any:
            (sensor,) = backfill_sensors(spec)
            with dg.build_sensor_context(instance, resources={"warehouse": WarehouseResource()}) as context:
                return sensor.evaluate_tick(context)

        def is_replayed() -> bool:
            """The run that the sensor asks for."""
            (request,) = tick(after).run_requests
            keys.append(request.run_key)
            return (
                replay_job(after)
                .execute_in_process(
                    run_config=request.run_config,
                    tags=request.tags,
                    instance=instance,
                    resources={"warehouse": WarehouseResource()},
                    raise_on_error=False,
                )
                .success
            )

        assert tick(before).skip_message == "nothing is due for contract"
        other.execute("select pg_advisory_lock(hashtextextended('unit.things', 7))")
        assert not is_replayed()
        other.execute("select pg_advisory_unlock_all()")
        assert is_replayed()
        assert tick(after).skip_message == "nothing is due for contract"
    # Dagster drops a request whose key it has seen
    assert len(set(keys)) == 2


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
