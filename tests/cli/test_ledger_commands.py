"""state, quarantine and syncs on a real warehouse: plans first, then deeds; wrong words; JSON; a round trip."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import ContractError
from platform_assets.cli import main
from platform_assets.settings import load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse, is_running, stop_warehouse
from tests.cli.conftest import Project
from tests.cli.test_reading import headwater_only
from tests.support.scripted import records, sync
from tests.support.servers import clean_environment
from tests.support.sql import run as sql

STREAM: dict[str, Any] = {
    "write": "merge",
    "primary_key": "id",
    "cursor": {"field": "at"},
    "columns": {"amount": {"type": "bigint"}},
}
SOURCE = """\
type: platform_assets.components.Source
attributes:
  source: unit
  owner: team:test
  connector: {kind: rest, base_url: "http://127.0.0.1:9"}
  streams:
    - name: things
      path: /things
      write: merge
      primary_key: id
      cursor: {field: at}
      columns: {amount: {type: bigint}}
"""


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Headwater = Callable[..., Done]


@pytest.fixture
def headwater(env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Headwater:
    """headwater(*words): the command line in this process."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> Done:
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


def day(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "at": f"2024-01-{number:02}T00:00:00Z", **fields}


@pytest.fixture
def moved(warehouse: Warehouse) -> list[str]:
    """Two syncs of unit.things, at 1 and at 2 January; their ids."""
    return [sync(warehouse.loader_dsn, [records(day(number))], **STREAM).sync_id for number in (1, 2)]


def cursor(headwater: Headwater) -> str | None:
    (state,) = headwater("state", "list", "--json").json["states"]
    return state["state"].get("cursor", {}).get("value")


FIRST, SECOND = "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"


def test_state_is_listed_shown_and_compared(headwater: Headwater, moved: list[str]) -> None:
    listed = headwater("state", "list", "unit")
    assert listed.code == 0, listed.err
    assert SECOND in listed.out

    shown = headwater("state", "show", "unit.things")
    assert [line.split()[0] for line in shown.out.splitlines() if "sync " in line and "2024" in line] == ["2", "1"]
    assert all(sync_id in shown.out for sync_id in moved)

    changed = headwater("state", "diff", "unit.things").out
    assert [words for line in changed.splitlines() if (words := line.split())[:1] == ["cursor.value"]] == [
        ["cursor.value", f'"{FIRST}"', f'"{SECOND}"']
    ]


@pytest.mark.parametrize(
    ("words", "after"),
    [
        (["rewind", "unit.things", "--to-version", "1"], FIRST),
        (["rewind", "unit.things", "--to-value", "2024-01-01T12:00:00Z"], "2024-01-01T12:00:00Z"),
        (["undo", "unit.things"], FIRST),
        (["reset", "unit.things"], None),
    ],
)
def test_a_move_shows_its_plan_and_does_nothing_without_yes(
    headwater: Headwater, moved: list[str], words: list[str], after: str | None
) -> None:
    plan = headwater("state", *words)
    assert plan.code == 0, plan.err
    assert "This was the plan; give --yes to apply it." in plan.out
    assert cursor(headwater) == SECOND

    done = headwater("state", *words, "--yes")
    assert "unit.things: now version 3" in done.out
    assert cursor(headwater) == after


def test_rewind_to_what_a_sync_left_takes_its_id(headwater: Headwater, moved: list[str]) -> None:
    assert headwater("state", "rewind", "unit.things", "--to-sync", moved[0], "-y").code == 0
    assert cursor(headwater) == FIRST


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["state", "show", "things"], 3, "'things' names no stream"),
        (["state", "show", ".things"], 3, "'.things' names no stream"),
        (["state", "show", "unit.nothing"], 3, "unit.nothing: has no saved state"),
        (["state", "reset", "unit.nothing", "-y"], 3, "unit.nothing: has no saved state"),
        (["state", "rewind", "unit.things"], 3, "needs one target"),
        (["state", "rewind", "unit.things", "--to-version", "1", "--to-value", "x"], 3, "needs one target"),
        (["state", "rewind", "unit.things", "--to-value", "soon"], 3, "'soon' is no timestamp"),
        (["state", "rewind", "unit.things", "--to-version", "9"], 3, "no state of 9 is kept"),
        (["state", "rewind", "unit.things", "--to-sync", "abc"], 2, "Invalid value for '--to-sync'"),
        (["state", "rewind", "unit.things", "--to-time", "noon"], 2, "Invalid value for '--to-time'"),
        (["state", "diff", "unit.things", "--from", "7"], 3, "has no version 7"),
        (["state", "import", "/nowhere.json"], 3, "No such file"),
        (["quarantine", "list", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["quarantine", "show", "99"], 3, "no record 99"),
        (["quarantine", "discard", "things"], 3, "'things' names no stream"),
        (["quarantine", "replay", "nosuch.things"], 3, "nosuch"),
        (["syncs", "show"], 3, "needs the id of a sync"),
        (["syncs", "show", "zzz"], 3, "no sync's id starts with zzz"),
        (["syncs", "show", "%"], 3, "several syncs' ids start with %"),
        (["syncs", "unit", "abc"], 3, "Write `headwater syncs show ID`"),
    ],
)
def test_wrong_words_say_what_is_wrong(
    headwater: Headwater, moved: list[str], words: list[str], code: int, said: str
) -> None:
    done = headwater(*words)
    assert said in done.err
    assert done.code == code
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 6


def test_states_move_to_another_place_through_a_file(headwater: Headwater, moved: list[str], tmp_path: Path) -> None:
    file = tmp_path / "states.json"
    assert headwater("state", "export", "unit", "--to", str(file)).code == 0
    assert headwater("state", "import", str(file)).out.splitlines() == ["nothing to change"]
    headwater("state", "reset", "unit.things", "--yes")
    assert cursor(headwater) is None

    plan = headwater("state", "import", str(file))
    assert "unit.things: import from version 3" in plan.out
    assert cursor(headwater) is None
    assert headwater("state", "import", str(file), "--yes").code == 0
    assert cursor(headwater) == SECOND


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"format": "headwater-state-1"}', '{"format": "headwater-state-1", "states": [{"source": "unit"}]}'],
)
def test_a_file_that_is_no_export_is_refused(
    headwater: Headwater, warehouse: Warehouse, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "states.json"
    file.write_text(text, encoding="utf-8")
    done = headwater("state", "import", str(file), "--yes")
    assert done.code == 3
    assert "state import" in done.err


BAD = "[/b] :smile:"


@pytest.fixture
def held(warehouse: Warehouse) -> str:
    """One good record and two bad ones of unit.things; the sync's id."""
    rows = [day(1, amount=1), day(2, amount="2x"), day(3, amount=BAD)]
    return sync(warehouse.loader_dsn, [records(*rows)], **STREAM).sync_id


def test_held_records_are_summed_listed_and_shown_as_they_are(headwater: Headwater, held: str) -> None:
    (summary,) = headwater("quarantine", "list", "--json").json
    assert (summary["source"], summary["stream"], summary["records"]) == ("unit", "things", 2)
    assert "text does not fit bigint" in headwater("quarantine", "list").out

    records_held = headwater("quarantine", "list", "unit.things", "--json").json
    assert [(item["field"], item["position"], item["sync_id"]) for item in records_held] == [
        ("amount", "page 1, record 2", held),
        ("amount", "page 1, record 3", held),
    ]
    assert BAD in headwater("quarantine", "list", "unit").out
    assert headwater("quarantine", "list", "nyc_weather").out == "nothing is held\n"
    assert "nyc_wether: no such source" in headwater("quarantine", "list", "nyc_wether").err

    number = str(records_held[1]["quarantine_id"])
    assert headwater("quarantine", "show", number, "--json").json == records_held[1]
    assert f'"amount": "{BAD}"' in headwater("quarantine", "show", number).out


def test_what_the_source_said_anew_is_shown_with_the_sync_that_read_it(
    headwater: Headwater, warehouse: Warehouse, held: str
) -> None:
    later = sync(warehouse.loader_dsn, [records(day(2, amount="2x"))], **STREAM).sync_id
    old, _ = headwater("quarantine", "list", "unit", "--status", "superseded").out.splitlines()[-1].split()[:2]
    assert [item["status"] for item in headwater("quarantine", "list", "unit", "--json").json] == ["held", "held"]
    shown = headwater("quarantine", "show", old).out
    assert f"of sync {held}, " in shown
    assert "contract version 1\n" in shown
    assert f"\nsuperseded by sync {later}, " in shown
    listed = headwater("quarantine", "list", "unit.things").out.splitlines()
    assert all(line.split()[1:4] == ["unit.things", "held", "1"] for line in listed[-2:])
    assert headwater("quarantine", "list", "--status", "replayed").out == "nothing is replayed\n"


def test_discarding_says_first_what_it_would_do(headwater: Headwater, warehouse: Warehouse, held: str) -> None:
    first, *_ = headwater("quarantine", "list", "unit.things", "--json").json
    one = ["quarantine", "discard", "unit.things", "--id", str(first["quarantine_id"])]
    count = "select status, count(*) from ops.quarantine group by 1 order by 1"

    assert headwater(*one).out == "1 record of unit.things would be discarded; give --yes to do it.\n"
    assert sql(warehouse.admin_dsn, count) == [("held", 2)]
    assert headwater(*one, "--yes").out == "1 record of unit.things discarded\n"
    assert sql(warehouse.admin_dsn, count) == [("discarded", 1), ("held", 1)]
    assert headwater(*one, "--yes").out == "nothing is held\n"
    assert headwater("quarantine", "discard", "unit.things", "-y").out == "1 record of unit.things discarded\n"


@pytest.mark.slow
def test_a_replay_loads_what_fits_now_and_then_nothing(
    project: Project, env: dict[str, str], warehouse: Warehouse, held: str
) -> None:
    sql(warehouse.admin_dsn, "update ops.quarantine set payload = replace(payload, '\"2x\"', '2')")
    project.source(SOURCE, "unit")

    def replayed(*words: str) -> str:
        done = project.run("quarantine", "replay", "unit.things", *words, **headwater_only(env))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    plan = replayed()
    assert plan.startswith("unit.things: 2 records would be read again")
    assert "A key that the table has with a greater at stays as it is." in plan
    assert plan.endswith("This was the plan; give --yes to apply it.")
    assert sql(warehouse.admin_dsn, "select count(*) from raw_unit.things") == [(1,)]
    assert replayed("--yes") == "unit.things: 2 replayed, 1 loaded, 1 back in quarantine"
    assert sql(warehouse.admin_dsn, "select id, amount from raw_unit.things order by id") == [(1, 1), (2, 2)]
    sql(warehouse.admin_dsn, "update ops.quarantine set payload = replace(payload, '\"[/b] :smile:\"', '3')")
    assert replayed("--yes") == "unit.things: 1 replayed, 1 loaded, 0 back in quarantine"
    assert replayed("--yes") == "nothing is held"
    assert sql(warehouse.admin_dsn, "select sum(amount) from raw_unit.things") == [(6,)]


def test_the_ledger_lists_syncs_newest_first(headwater: Headwater, warehouse: Warehouse, held: str) -> None:
    check = {"type": "row_rule", "column": "amount", "min": 0}
    with pytest.raises(ContractError):
        sync(warehouse.loader_dsn, [records(day(4, amount=-1))], **STREAM, checks=[check])

    listed = headwater("syncs", "--json").json
    assert [(item["status"], item["failure_class"], item["rows_loaded"]) for item in listed] == [
        ("failed", "contract", 0), ("succeeded_with_warnings", None, 1),
    ]  # fmt: skip
    lines = headwater("syncs", "unit.things").out.splitlines()
    assert "1 rows with amount outside min 0" in next(line for line in lines if "failed (contract)" in line)
    (row,) = [line.split() for line in lines if line.startswith(held[:8])]
    # extracted, loaded, deduplicated, filtered, quarantined
    assert row[5:10] == ["3", "1", "0", "0", "2"]
    assert len(headwater("syncs", "--limit", "1", "--json").json) == 1
    assert headwater("syncs", "nyc_weather").out == "no sync is on record\n"
    misspelt = headwater("syncs", "nyc_weather.wether")
    assert (misspelt.code, misspelt.err) == (
        3,
        "config error: nyc_weather: no stream 'wether'\nDid you mean 'weather'?\n",
    )


def test_everything_about_one_sync_is_found_by_the_beginning_of_its_id(headwater: Headwater, held: str) -> None:
    shown = headwater("syncs", "show", held[:8]).out
    facts = {name.strip(): value for name, _, value in (line.partition("  ") for line in shown.splitlines())}
    assert facts["sync"].strip() == held
    assert facts["rows"].strip() == (
        "3 extracted = 1 loaded, 0 deduplicated, 0 filtered, 2 quarantined; 0 updated, 0 deleted"
    )
    assert facts["newest cursor"].strip() == FIRST
    assert "check schema_drift" in facts

    whole = headwater("syncs", "show", held, "--json").json
    assert whole["rows_extracted"] == 3
    assert set(whole["step_seconds"]) == {"start", "extract", "land", "audit", "publish", "finalize"}


def test_a_command_stops_the_embedded_server_only_when_it_started_it(
    headwater: Headwater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = clean_environment() | {"HEADWATER_HOME": str(tmp_path / "own")}
    for name in ("HEADWATER_WAREHOUSE_URL", "HEADWATER_DAGSTER_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADWATER_HOME", env["HEADWATER_HOME"])
    settings = load_settings(env)
    try:
        for words in (["state", "list"], ["quarantine", "list"], ["syncs"]):
            assert headwater(*words).code == 0
            assert not is_running(settings), words
        ensure_warehouse(settings)
        assert headwater("state", "list").out == "no position is saved yet\n"
        assert is_running(settings)
    finally:
        stop_warehouse(settings)
