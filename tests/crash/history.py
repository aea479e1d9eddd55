"""What the victim's source says, and what must be true in the warehouse after the sync that reads all of it.

The source is a log, read in three pages. An earlier sync may have read what came before. The log's first fifty records
change rows of the earlier ones, one record breaks the contract, and one key comes twice on a page.
"""

from typing import Any

import psycopg

from connectors.sync.folders import base_folder
from platform_assets.warehouse import Warehouse

Row = tuple[int, int, str, bool]
"""n, at, v, and whether it is the key's newest version."""

PAGE, PAGES = 100, 3
EARLIER, LOG = range(PAGE), range(PAGE, (PAGES + 1) * PAGE)
CHANGES, BROKEN, DOUBLE = 50, 250, 311
DISPOSITIONS: dict[str, dict[str, Any]] = {
    "append": {"write": "append", "cursor": {"field": "at"}},
    "merge": {"write": "merge", "primary_key": "n", "cursor": {"field": "at"}},
    "delete-insert": {"write": "merge", "merge": "delete-insert", "primary_key": "n", "cursor": {"field": "at"}},
    "replace": {"write": "replace", "primary_key": "n"},
    "scd2": {"write": "scd2", "primary_key": "n", "cursor": {"field": "at"}},
}
COLUMNS: dict[str, Any] = {"v": {"type": "text", "nullable": False}}


def record(at: int) -> dict[str, Any]:
    """What the log says at this place."""
    n = at if at < PAGE else at - PAGE if at < PAGE + CHANGES else at - CHANGES
    return {"n": n - (at == DOUBLE), "at": at, "v": None if at == BROKEN else f"value {at}"}


def published(disposition: str, pages: int, *, is_first: bool = False) -> list[Row]:
    """The table once so many pages are published; of a replacement nothing shows before all are."""
    current: dict[int, int] = {}
    closed: list[int] = []
    for latest in _windows(disposition, pages, is_first=is_first):
        if disposition == "replace":
            current = {}
        closed += [current[key] for key in latest if key in current]
        current |= latest
    versions = [(at, True) for at in current.values()]
    if disposition == "scd2":
        versions += [(at, False) for at in closed]
    return sorted((record(at)["n"], at, f"value {at}", is_current) for at, is_current in versions)


def _windows(disposition: str, pages: int, *, is_first: bool) -> list[dict[int, int]]:
    """By key the newest good record of what each publication brings."""
    pieces = [LOG[page * PAGE : (page + 1) * PAGE] for page in range(pages)]
    if disposition == "replace":
        pieces = [LOG] if pages == PAGES else []
    key = "at" if disposition == "append" else "n"
    return [{record(at)[key]: at for at in piece if at != BROKEN} for piece in ([] if is_first else [EARLIER]) + pieces]


def rows_of(connection: psycopg.Connection[Any], disposition: str) -> list[Row]:
    """The table as it is; nothing when it is not there."""
    if connection.execute("select to_regclass('raw_unit.things')").fetchone() == (None,):
        return []
    current = "_valid_to is null" if disposition == "scd2" else "true"
    return connection.execute(f"select n, at, v, {current} from raw_unit.things order by n, at").fetchall()


def verify(warehouse: Warehouse, disposition: str, *, is_first: bool = False) -> None:
    """Everything equals an undisturbed run: rows, quarantine, state, ledger; nothing is left over."""
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as connection:
        assert rows_of(connection, disposition) == published(disposition, PAGES, is_first=is_first)
        if disposition == "scd2":
            _none(
                connection,
                "select n from raw_unit.things t where _valid_to is not null and not exists "
                "(select 1 from raw_unit.things s where s.n = t.n and s._valid_from = t._valid_to)",
                "a version that ends without a successor",
            )
        held = "select distinct payload_sha256 from ops.quarantine where status = 'held'"
        assert len(connection.execute(held).fetchall()) == 1, "the one record that breaks the contract"
        loads, known = "select load_id from raw_unit._dlt_loads", "select unnest(load_ids) from ops.syncs"
        _none(connection, f"select 1 from raw_unit.things where _dlt_load_id not in ({loads})", "orphan rows")
        _none(connection, f"{known} except {loads}", "a load that dlt does not know")
        _none(connection, f"{loads} except {known}", "a load that the ledger does not know")
        _verify_ledger(connection, disposition, is_first=is_first)
        tables = "select tablename from pg_tables where schemaname = 'raw_unit' and tablename not like '\\_dlt\\_%'"
        _none(connection, f"{tables} and tablename not in ('things', 'parents')", "a left-over table")
        if "cursor" in DISPOSITIONS[disposition]:
            newest = "select state #>> '{cursor,value}' from ops.stream_state order by version desc limit 1"
            assert connection.execute(newest).fetchone() == (str(LOG[-1]),)
    assert list(base_folder().iterdir()) == [], "a left-over folder"


def _verify_ledger(connection: psycopg.Connection[Any], disposition: str, *, is_first: bool) -> None:
    loaded = [len(window) for window in _windows(disposition, PAGES, is_first=is_first)]
    _none(connection, "select 1 from ops.syncs where status = 'running'", "an unsettled sync")
    _none(
        connection,
        "select 1 from ops.syncs "
        "where rows_extracted <> rows_loaded + rows_deduplicated + rows_filtered + rows_quarantined",
        "a sync that is out of balance",
    )
    if disposition != "replace":
        assert connection.execute("select sum(rows_loaded) from ops.syncs").fetchone() == (sum(loaded),)
    so_far = "rows_loaded" if disposition == "replace" else "sum(rows_loaded) over (order by started_at)"
    whole = loaded[-1] if disposition == "replace" else sum(loaded)
    _none(
        connection,
        f"select 1 from (select status, started_at, {so_far} as loaded from ops.syncs order by started_at "
        f"offset {0 if is_first else 1}) as later where status like 'succeeded%' and loaded <> {whole}",
        "a sync that counts as succeeded and left rows out",
    )
    _none(
        connection,
        "select 1 from ops.syncs where status = 'failed' and (failure_class is null or message is null)",
        "a failed sync that does not say why",
    )


def _none(connection: psycopg.Connection[Any], query: str, what: str) -> None:
    assert connection.execute(query.encode()).fetchall() == [], what
