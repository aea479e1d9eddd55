"""Contracts inferred from a first sync, put into a source file, and compiled to dbt: real PostgreSQL, real dbt."""

import difflib
from collections.abc import Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import yaml

from connectors.contract import DiscoveredColumn, DiscoveredStream
from connectors.errors import ConfigError
from connectors.sling.plan import Shape, replication
from connectors.specs import SourceSpec, parse_source
from connectors.sync import Progress, SyncRequest
from connectors.sync.lifecycle import run
from connectors.texts import TextType
from platform_assets.checks import checks_of
from platform_assets.contracts.dbt_files import generated, mart_files
from platform_assets.contracts.infer import Contract, infer
from platform_assets.contracts.insertion import with_contract
from platform_assets.contracts.targets import compiled
from platform_assets.settings import load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse
from tests.dbt.processes import PROJECT, Dbt
from tests.support.scripted import Scripted, records
from tests.support.servers import TestServer, clean_environment, database_pair

BLOCK = """\
type: platform_assets.components.Source
attributes:
  source: unit   # the shop
  owner: team:test
  connector: {kind: rest, base_url: "http://127.0.0.1:9"}
  streams:
    # all of them
    - name: people
      path: /people   # by name
      write: replace
      columns:
        city: {type: text, description: "Where: there"}   # keep me
      # the end
    - {name: others, path: /others}
"""
STATES = ("open", "shut", "paid")
OFFERED = DiscoveredStream("people", (DiscoveredColumn("tags", "json", is_nullable=False),))
"""What discovery says: a promise of a database, a guess from one page of an API."""


@pytest.fixture(scope="module")
def warehouse(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Warehouse]:
    with database_pair(server, f"contracts_{uuid4().hex[:12]}") as pair:
        home = tmp_path_factory.mktemp("contracts")
        yield ensure_warehouse(load_settings(clean_environment() | pair | {"HEADWATER_HOME": str(home)}))


def parsed(text: str) -> SourceSpec:
    return parse_source(yaml.safe_load(text)["attributes"], "defs.yaml")


def load(warehouse: Warehouse, spec: SourceSpec, stream: str, rows: list[dict[str, Any]]) -> None:
    run(SyncRequest(spec, spec.stream(stream)), warehouse.loader_dsn, Progress(), Scripted([records(*rows)]))


@pytest.fixture(scope="module")
def inferred(warehouse: Warehouse) -> Contract:
    spec = parsed(BLOCK)
    rows = [
        {
            "id": number, "city": "Bonn", "state": STATES[number % 3], "email": f"p{number}@example.com",
            "contact": f"+49 228 {number:07}", "birthDate": "1990-01-01", "amount": number / 4,
            "at": "2024-01-01T00:00:00Z", "note": None if number % 2 else "hello", "tags": ["a"],
        }
        for number in range(120)
    ]  # fmt: skip
    load(warehouse, spec, "people", rows)
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        return infer(connection, spec, spec.stream("people"), OFFERED)


def test_a_first_sync_says_types_and_guesses_the_rest(inferred: Contract) -> None:
    found = {column.name: (dict(column.facts), column.guesses) for column in inferred.columns}

    assert (inferred.key, inferred.is_key_known, inferred.rows) == (("id",), False, 120)
    every = "no NULL in 120 rows"
    assert found == {
        "id": ({"type": "bigint", "nullable": False}, (every,)),
        "state": (
            {"type": "text", "nullable": False, "accepted_values": ["open", "paid", "shut"]},
            (every, "3 values in 120 rows"),
        ),
        "email": ({"type": "text", "nullable": False, "pii": "personal"}, (every, "personal by its name")),
        "contact": ({"type": "text", "nullable": False, "pii": "personal"}, (every, "personal by its values")),
        "birthDate": (
            {"type": "text", "nullable": False, "pii": "sensitive"}, (every, "sensitive by its name"),
        ),
        "amount": ({"type": "double", "nullable": False}, (every,)),
        "at": ({"type": "timestamp", "nullable": False}, (every,)),
        "note": ({"type": "text"}, ()),
        "tags": ({"type": "json", "nullable": False}, (every,)),
    }  # fmt: skip


def test_only_a_database_promises_that_a_column_has_no_null(warehouse: Warehouse, inferred: Contract) -> None:
    database = BLOCK.replace('kind: rest, base_url: "http://127.0.0.1:9"', "kind: database, url: env:SHOP_URL")
    spec = parsed("".join(line for line in database.splitlines(keepends=True) if "path:" not in line))
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        found = infer(connection, spec, spec.stream("people"), OFFERED)

    guesses = {column.name: column.guesses for column in found.columns}
    assert guesses["tags"] == ()
    assert guesses | {"tags": ()} == {column.name: column.guesses for column in inferred.columns} | {"tags": ()}


def test_nothing_is_guessed_of_a_key_from_few_rows(warehouse: Warehouse) -> None:
    spec = parsed(BLOCK.replace("others", "orders"))
    load(warehouse, spec, "orders", [{"order_id": number, "note": "n"} for number in range(99)])
    keyed = DiscoveredStream("orders", primary_key=("order_id",))
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        alone = infer(connection, spec, spec.stream("orders"), None)
        told = infer(connection, spec, spec.stream("orders"), keyed)

    assert (alone.key, alone.columns[0].facts, alone.columns[0].guesses) == ((), {"type": "bigint"}, ())
    assert (told.key, told.is_key_known, told.columns[0].facts) == (
        ("order_id",), True, {"type": "bigint", "nullable": False},
    )  # fmt: skip


def test_the_file_keeps_every_line_and_comment_and_gains_the_contract(inferred: Contract) -> None:
    after = with_contract(BLOCK, "defs.yaml", "unit", "people", inferred)

    changes = list(difflib.ndiff(BLOCK.splitlines(), after.splitlines()))
    assert [line for line in changes if line.startswith("- ")] == []
    added = [line[2:] for line in changes if line.startswith("+ ")]
    assert added[0] == "      primary_key: id  # guess: unique in 120 rows"
    assert added[3] == (
        "        email: {type: text, nullable: false, pii: personal}"
        "  # guess: no NULL in 120 rows; personal by its name"
    )
    spec = parsed(after).stream("people")
    assert spec.primary_key == ("id",)
    assert list(spec.columns) == ["city", *(column.name for column in inferred.columns)]
    assert spec.columns["city"].description == "Where: there"


@pytest.mark.parametrize(
    "stanza",
    [
        "    - {name: people, path: /people}\n",
        "    - {name: people, path: /people, columns: {city: {type: text}}}  # one line\n",
        "    - {name: people, path: /people, columns: {}}\n",
        "    - name: people\n      path: /people",
        "    - name: people\n      path: /p\n      columns: {city: {type: text},\n        zip: {type: text}}   # two\n",
        "    - name: people\n      path: /people\n      description: >\n        Many\n        words.\n\n\n# the end\n",
        "    - path: /people\n      name: people\n      columns:\n\n        city:\n          type: text   # deep\n",
    ],
)
def test_every_shape_of_a_stanza_takes_the_contract(inferred: Contract, stanza: str) -> None:
    head = BLOCK[: BLOCK.index("    # all of them")]
    text = head + stanza
    after = with_contract(text, "defs.yaml", "unit", "people", inferred)

    spec = parsed(after).stream("people")
    assert spec.primary_key == ("id",)
    assert set(spec.columns) >= {column.name for column in inferred.columns}
    assert set(parsed(text).stream("people").columns) <= set(spec.columns)
    for comment in ("# one line", "# two", "# the end", "# deep"):
        assert (comment in text) == (comment in after)


def test_a_stream_that_was_never_synced_has_nothing_to_infer(warehouse: Warehouse) -> None:
    spec = parsed(BLOCK)
    with (
        psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection,
        pytest.raises(ConfigError, match=r"unit\.others: has no schema version yet\nRun `headwater sync unit\.others`"),
    ):
        infer(connection, spec, spec.stream("others"), None)


COLUMNS: dict[str, Any] = {
    "id": {"type": "bigint"},
    "amount": {"type": "decimal", "precision": 12, "scale": 2, "unit": "eur"},
    "state": {"type": "text", "nullable": False, "accepted_values": ["open", "shut"]},
    "email": {"rule": "hash", "key": "env:HASH_KEY"},
    "ssn": {"rule": "block"},
}
KEYED: dict[str, Any] = {"name": "orders", "primary_key": "id", "write": "merge", "columns": COLUMNS}
EXACT = {"id": "bigint", "amount": "numeric(12,2)", "state": "text", "email": "text"}


def shop(kind: dict[str, Any], **stream: Any) -> SourceSpec:
    return parse_source({"source": "shop", "owner": "team:x", "connector": kind, "streams": [KEYED | stream]}, "d.yaml")


def test_what_a_contract_compiles_to_agrees_in_every_target() -> None:
    found = compiled(shop({"kind": "rest", "base_url": "http://127.0.0.1:9"}, path="/o").streams[0])

    assert {column["name"]: column["x-pg-type"] for column in found["dlt"]} == EXACT
    assert [(one["name"], one["nullable"], one.get("primary_key", False)) for one in found["dlt"]] == [
        ("id", False, True), ("amount", True, False), ("state", False, False), ("email", True, False),
    ]  # fmt: skip
    assert found["sling"] == dict.fromkeys(EXACT, "string")
    assert found["checks"] == ["schema_drift", "quarantine"]
    assert found["engine"]["rows"] == ["id is a key: never NULL", "state is never NULL", "state is one of open, shut"]
    assert found["dbt"] == EXACT | {"ssn": "text"}
    assert found["mart"] == {
        "id": ["bigint", "not_null", "key"], "state": ["text", "not_null"], "email": ["text"],
        "amount_eur": ["numeric(12,2)"],
    }  # fmt: skip


def test_every_target_does_what_the_contract_compiles_to(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASH_KEY", "a key")
    spec = shop({"kind": "rest", "base_url": "http://127.0.0.1:9"}, path="/o", max_quarantined={"share": 1})
    stream = spec.streams[0]
    found = compiled(stream)
    good = {"id": 1, "amount": "1.50", "state": "open", "email": "a@b.example", "ssn": "078"}
    load(warehouse, spec, "orders", [good, good | {"id": 2, "state": "ajar"}, good | {"id": None}])

    with psycopg.connect(warehouse.admin_dsn) as connection:
        (told,) = connection.execute(
            "select schema::jsonb -> 'tables' -> 'orders' from raw_shop._dlt_version"
        ).fetchall()
        held = connection.execute("select count(*) from ops.quarantine where source = 'shop'").fetchone()
        # promises, which rejects on their way to quarantine and rows that the source deletes cannot keep: no DDL
        bound = connection.execute(
            "select attname from pg_attribute"
            " where attrelid = 'raw_shop.orders'::regclass and attnum > 0 and attnotnull"
            " union all select conname from pg_constraint where conrelid = 'raw_shop.orders'::regclass"
        ).fetchall()
    dlt = told[0]
    hints = {"data_type", "nullable", "x-pg-type", "primary_key"}
    # dlt leaves out what it takes for granted
    own = [
        {"name": one["name"], "nullable": True} | {key: one[key] for key in one if key in hints}
        for one in dlt["columns"].values()
        if one["name"] in EXACT
    ]
    assert sorted(own, key=lambda one: one["name"]) == sorted(found["dlt"], key=lambda one: one["name"])
    assert dlt["schema_contract"] == {"tables": "evolve", "columns": "freeze", "data_type": "freeze"}
    assert held == (2,)
    assert bound == []
    assert {check.name for check in checks_of(stream, "d.yaml")} >= set(found["checks"])
    # Sling is asked for what the table has, without what is blocked
    sling = shop({"kind": "sling", "connection": "env:SHOP"}, object="public.orders").streams[0]
    asked = replication(sling, Shape(dict.fromkeys(COLUMNS, TextType("text"))), None, "postgres", "")  # pyright: ignore[reportArgumentType]  a stream of its kind
    (options,) = asked["streams"].values()
    assert {name: options["columns"][name] for name in options["select"]} == compiled(sling)["sling"]


@pytest.mark.slow
def test_generated_staging_and_mart_build_and_serve_a_typed_null_for_what_is_gone(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    attributes: dict[str, Any] = {
        "source": "gone", "owner": "team:x", "connector": {"kind": "rest", "base_url": "http://127.0.0.1:9"},
        "streams": [{
            "name": "orders", "path": "/o", "primary_key": ["id", "line"], "write": "merge", "description": "Orders.",
            "columns": {
                "id": {"type": "bigint", "nullable": False}, "line": {"type": "bigint", "nullable": False},
                "state": {"type": "text", "nullable": False, "accepted_values": ["open", "shut"]},
                "amount": {"type": "decimal", "precision": 12, "scale": 2}, "at": {"type": "timestamp"},
                "ssn": {"rule": "block"},
            },
        }],
    }  # fmt: skip
    spec = parse_source(attributes, "defs.yaml")
    load(warehouse, spec, "orders", [{"id": 1, "line": 1, "state": "open", "amount": 1.5, "at": None, "ssn": "x"}])
    # the source drops two columns
    load(warehouse, spec, "orders", [{"id": 2, "line": 1, "state": "shut"}])
    project = tmp_path / "project"
    for name in ("macros", "tests", "models/docs.md", "dbt_project.yml", "profiles.yml"):
        target = project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / name).is_dir():
            for file in (PROJECT / name).rglob("*.sql"):
                place = target / file.relative_to(PROJECT / name)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.read_bytes())
        else:
            target.write_bytes((PROJECT / name).read_bytes())
    for file in (*generated(spec), *mart_files(spec, spec.streams[0], "sales")):
        file.write(project)

    done = Dbt(warehouse, tmp_path / "target", project)("build")

    assert done.returncode == 0, done.stdout
    with psycopg.connect(warehouse.admin_dsn) as connection:
        rows = connection.execute(
            "select id, amount, at_at, ssn, pg_typeof(amount)::text, pg_typeof(ssn)::text from staging.stg_gone__orders"
            " order by id"
        ).fetchall()
        said = connection.execute(
            "select col_description('raw_gone.orders'::regclass, attnum) from pg_attribute"
            " where attrelid = 'raw_gone.orders'::regclass and attname = 'amount'"
        ).fetchone()
        keyed = connection.execute(
            "select count(*) from pg_constraint where conrelid::regclass::text = 'marts.orders' and contype = 'p'"
        ).fetchone()
    assert [tuple(map(str, row)) for row in rows] == [
        ("1", "1.50", "None", "None", "numeric", "text"), ("2", "None", "None", "None", "numeric", "text"),
    ]  # fmt: skip
    assert said is not None
    assert said[0].startswith("Missing from the source since")
    assert keyed == (1,)
