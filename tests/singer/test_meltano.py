"""`headwater import meltano`: what the project says is what the source file says, and secrets stay out of it."""

import json
from pathlib import Path

import pytest
import yaml

from connectors.errors import ConfigError
from connectors.singer.meltano import Inputs, read_project
from connectors.specs import parse_source
from platform_assets.warehouse import Warehouse
from tests.cli.conftest import INGEST, Project, project
from tests.support.sql import run as sql

__all__ = ["project"]

PROJECT = """
version: 1
default_environment: dev
environments:
- name: dev
- name: prod
  config:
    plugins:
      extractors:
      - name: tap-postgres
        config: {host: db.prod}
        select: [public-orders.*, "!public-orders.card", public-items.id, public-items.at]
plugins:
  extractors:
  - name: tap-postgres
    variant: meltanolabs
    config:
      host: localhost
      user: $PG_USER
      password: hunter2
      ssh_tunnel.enable: true
      stream_maps: {public-orders: {name: __NULL__}}
    metadata:
      public-*: {replication-method: INCREMENTAL, replication-key: at}
      public-items: {id: {inclusion: automatic}}
  - name: tap-postgres--billing
    inherit_from: tap-postgres
    config: {host: billing, password: $BILLING_PASSWORD}
    metadata: {"*": {replication-method: FULL_TABLE}}
  - name: tap-own
    pip_url: git+https://example.com/tap-own@v1 setuptools<81
    python: python3.11
    select: [things.*]
  loaders:
  - name: target-postgres
jobs:
- name: load
  tasks: [tap-postgres target-postgres]
schedules:
- {name: nightly, interval: "0 3 * * *", job: load}
"""
LOCK = {
    "pip_url": "meltanolabs-tap-postgres==0.10.0", "executable": "tap-postgres", "capabilities": ["catalog", "state"],
    "settings": [{"name": "password", "sensitive": True}],
}  # fmt: skip
CATALOG = {
    "streams": [
        {"tap_stream_id": f"public-{name}", "stream": f"public-{name}", "key_properties": ["id"],
         "schema": {"properties": {"id": {}, "at": {}, "card": {}}}}
        for name in ("orders", "items")
    ]
}  # fmt: skip
STATE = {"completed": {"singer_state": {"bookmarks": {"public-orders": {"at": 7}, "gone": {"at": 1}}, "v": 2}}}


@pytest.fixture
def meltano(tmp_path: Path) -> Path:
    folder = tmp_path / "meltano"
    (folder / "plugins" / "extractors").mkdir(parents=True)
    (folder / "plugins" / "extractors" / "tap-postgres--meltanolabs.lock").write_text(json.dumps(LOCK))
    (folder / "catalog.json").write_text(json.dumps(CATALOG))
    (folder / "state.json").write_text(json.dumps(STATE))
    path = folder / "meltano.yml"
    path.write_text(PROJECT)
    return path


def test_an_extractor_becomes_a_source_with_its_environment_selection_and_states(meltano: Path) -> None:
    inputs = Inputs(
        "prod", {"tap-postgres": meltano.parent / "catalog.json"}, {"tap-postgres": meltano.parent / "state.json"}
    )

    postgres, billing, own = read_project(meltano, inputs)

    incremental = {"replication_method": "incremental", "replication_key": "at"}
    incremental |= {"primary_key": ["id"], "write": "merge"}
    assert postgres.attributes == {
        "source": "postgres",
        "owner": "team:data",
        "connector": {
            "kind": "singer", "package": "meltanolabs-tap-postgres==0.10.0", "executable": "tap-postgres",
            "config": {
                "host": "db.prod", "user": "env:PG_USER", "password": "env:TAP_POSTGRES_PASSWORD",
                "ssh_tunnel": {"enable": True}, "stream_maps": {"public-orders": {"name": "__NULL__"}},
            },
        },
        "defaults": {"schedule": "0 3 * * *"},
        "streams": [
            {"name": "public_orders", "stream": "public-orders", "exclude": ["card"], **incremental},
            {"name": "public_items", "stream": "public-items", "select": ["id", "at"], **incremental,
             "column_metadata": {"id": {"inclusion": "automatic"}}},
        ],
    }  # fmt: skip
    assert parse_source(postgres.attributes, "x").stream("public_orders").write == "merge"
    assert [(row.stream, row.state["connector"]) for row in postgres.states] == [
        ("public_orders", {"stream": "public-orders", "bookmark": {"at": 7}}),
        ("_shared", {"data": {"v": 2, "bookmarks": {"gone": {"at": 1}}}, "streams": []}),
    ]
    assert "set TAP_POSTGRES_PASSWORD in .env: the value of password stays out of the source file" in postgres.notes
    assert "hunter2" not in json.dumps([postgres.attributes, *postgres.notes])
    assert billing.source == "postgres_billing"
    assert billing.attributes["connector"]["config"]["host"] == "billing"
    assert billing.attributes["streams"] == []
    assert "select *.* needs the tap's catalog: give --catalog tap-postgres--billing=FILE" in billing.notes
    assert own.attributes["connector"] == {
        "kind": "singer", "package": "git+https://example.com/tap-own@v1", "requires": ["setuptools<81"],
        "python": "3.11",
    }  # fmt: skip
    assert own.attributes["streams"] == [{"name": "things"}]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (Inputs("production"), "Known: dev, prod."),
        (Inputs(states={"tap-postgre": Path()}), "Did you mean 'tap-postgres'?"),
        (Inputs(catalogs={"tap-own": Path("/nowhere")}), "cannot be read"),
    ],
)
def test_what_is_not_there_is_named(meltano: Path, inputs: Inputs, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        read_project(meltano, inputs)


def test_the_plan_is_shown_first_and_applied_with_yes(
    meltano: Path, warehouse: Warehouse, env: dict[str, str], project: Project
) -> None:
    words = ["import", "meltano", str(meltano), "--catalog", f"tap-postgres={meltano.parent / 'catalog.json'}",
             "--state", f"tap-postgres={meltano.parent / 'state.json'}"]  # fmt: skip

    plan = project.run(*words, **env)

    assert plan.returncode == 0, plan.stderr
    assert "This was the plan" in plan.stdout
    assert "hunter2" not in plan.stdout + plan.stderr
    assert not list((project.root / INGEST).rglob("defs.yaml"))
    assert sql(warehouse.admin_dsn, "select count(*) from ops.stream_state") == [(0,)]

    done = project.run(*words, "--yes", **env)

    assert done.returncode == 0, done.stderr
    written = yaml.safe_load((project.root / INGEST / "postgres" / "defs.yaml").read_text())
    assert written["attributes"]["connector"]["package"] == "meltanolabs-tap-postgres==0.10.0"
    rows = sql(warehouse.admin_dsn, "select source, stream, reason from ops.stream_state order by 2")
    assert rows == [("postgres", "_shared", "import"), ("postgres", "public_orders", "import")]
    again = project.run(*words, "--yes", **env)
    assert (again.returncode, "exists already" in again.stderr) == (3, True), "what exists is not written over"
    assert "--name tap-postgres=postgres_2" in again.stderr

    renamed = project.run(*words, "--name", "tap-postgres=bills", "--name", "tap-own=theirs", "--yes", **env)

    assert renamed.returncode == 0, renamed.stderr
    assert sorted(path.parent.name for path in (project.root / INGEST).rglob("defs.yaml")) == [
        "bills", "own", "postgres", "theirs",
    ]  # fmt: skip


def test_what_meltano_keeps_in_the_projects_env_becomes_a_reference_and_is_told(meltano: Path) -> None:
    lock = LOCK | {"settings": [{"name": "password", "sensitive": True}, {"name": "ssh_tunnel.host", "env": "JUMP"}]}
    path = meltano.parent / "plugins" / "extractors" / "tap-postgres--meltanolabs.lock"
    path.write_text(json.dumps(lock))
    text = PROJECT.replace("      password: hunter2\n", "").replace(
        "    python: python3.11\n", "    select_filter: [things]\n"
    )
    meltano.write_text(text)
    (meltano.parent / ".env").write_text(
        "TAP_POSTGRES_PASSWORD=hunter2\nTAP_POSTGRES_DBNAME=shop\nJUMP=j\nTAP_OWN__X=1\n"
    )

    postgres, billing, own = read_project(meltano, Inputs(None, {}, {}))

    config = postgres.attributes["connector"]["config"]
    assert (config["password"], config["dbname"]) == ("env:TAP_POSTGRES_PASSWORD", "env:TAP_POSTGRES_DBNAME")
    assert config["ssh_tunnel"] == {"enable": True, "host": "env:JUMP"}
    assert "set TAP_POSTGRES_PASSWORD in .env: Meltano has password in the project's own" in postgres.notes
    assert "hunter2" not in str(postgres)
    assert "dbname" not in billing.attributes["connector"]["config"]
    assert "config" not in own.attributes["connector"]
    assert any(note.startswith("select_filter is not read") for note in own.notes)


def test_more_streams_than_a_run_has_are_told(meltano: Path) -> None:
    streams = [{"tap_stream_id": f"s{n}", "stream": f"s{n}", "schema": {"properties": {}}} for n in range(41)]
    (meltano.parent / "catalog.json").write_text(json.dumps({"streams": streams}))

    postgres, _, _ = read_project(meltano, Inputs(None, {"tap-postgres": meltano.parent / "catalog.json"}))

    assert "41 streams, and a run has at most 40: split the source file" in postgres.notes
