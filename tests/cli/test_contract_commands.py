"""`headwater schema` and `headwater contract`: decisions on record, contracts into files, nothing without --yes."""

import getpass
import json
from typing import Any

import pytest

from platform_assets.cli import main
from platform_assets.warehouse import Warehouse
from tests.cli.conftest import Project
from tests.support.scripted import records, sync

SOURCE = """\
type: platform_assets.components.Source
attributes:
  source: unit
  owner: team:test
  connector: {kind: rest, base_url: "http://127.0.0.1:9"}
  streams:
    - name: things      # of all kinds
      path: /things
      write: merge
      primary_key: id
"""


@pytest.fixture
def asked(env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """asked(*words): exit status and what was written, on this test's warehouse."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        return code, out + err

    return run


def synced(warehouse: Warehouse, **row: Any) -> None:
    sync(warehouse.loader_dsn, [records({"id": 1, **row})], write="merge", primary_key="id")


def test_a_drift_is_listed_shown_compared_and_accepted(warehouse: Warehouse, asked: Any) -> None:
    assert asked("schema", "list") == (0, "no schema is recorded yet\n")
    synced(warehouse, customer_name="Ann", amount=1)
    synced(warehouse, customername="Ann")

    (newest,) = json.loads(asked("schema", "list", "--json")[1])
    assert (newest["version"], newest["decision"], newest["waits"]) == (2, "pending", True)
    assert asked("schema", "diff", "unit.things")[1].splitlines() == [
        "customername new (text)",
        (
            "seen by version 2: new customername (added); missing customer_name (warn); missing amount (warn);"
            " renamed customername (warn)"
        ),
    ]
    assert "pending, waits" in asked("schema", "show", "unit.things")[1]

    code, said = asked("schema", "accept", "unit.things", "--version", "1", "--reason", "no")
    assert (code, "version 1 does not wait for a decision" in said) == (3, True)
    assert asked("schema", "accept", "unit.things")[0] == 2  # a reason is required
    assert asked("schema", "accept", "unit.things", "--reason", "agreed", "--who", "ann") == (
        0, "unit.things: schema version 2 is accepted by ann\n",
    )  # fmt: skip
    (newest,) = json.loads(asked("schema", "list", "unit", "--json")[1])
    assert (newest["decision"], newest["waits"], newest["reason"], newest["who"]) == (
        "accepted", False, "agreed", "ann",
    )  # fmt: skip


@pytest.mark.parametrize("command", ["show", "diff", "accept"])
def test_a_misspelt_stream_is_told_from_one_that_was_never_synced(asked: Any, command: str) -> None:
    reason = ("--reason", "r") if command == "accept" else ()
    code, said = asked("schema", command, "nyc_weather.wether", *reason)
    assert (code, "Did you mean 'weather'?" in said, "Sync it first" in said) == (3, True, False)
    code, said = asked("schema", command, "nyc_wether.weather", *reason)
    assert (code, "Did you mean 'nyc_weather'?" in said) == (3, True)
    code, said = asked("schema", command, "nyc_weather.weather", *reason)
    assert (code, "Sync it first" in said) == (3, True)


def test_a_column_is_blocked_and_let_in_again(warehouse: Warehouse, asked: Any) -> None:
    block = ("schema", "block", "nyc_weather.weather")
    assert asked(*block, "visib", "--reason", "nobody needs it")[0] == 0
    code, said = asked(*block, "origin", "--reason", "no")
    assert (code, "is a key or the cursor" in said) == (3, True)
    assert asked(*block, "visib", "--reason", "again")[0] == 3
    assert asked(*block, "visib", "--lift", "--reason", "needed after all")[0] == 0
    assert asked(*block, "visib", "--lift", "--reason", "twice")[0] == 3
    from tests.support.sql import run as sql

    assert sql(warehouse.admin_dsn, "select column_name, actor, lifted_by from ops.column_rules") == [
        ("visib", getpass.getuser(), getpass.getuser())
    ]


def test_the_contract_of_a_stream_is_shown_as_it_compiles(asked: Any) -> None:
    code, said = asked("contract", "show", "nyc_weather.weather")

    assert code == 0
    assert json.loads(said)["mart"]["origin"] == ["text", "not_null", "key"]
    assert asked("contract", "write", "--check") == (0, "dbt's files are in step with the source files\n")


@pytest.mark.slow
def test_a_contract_is_inferred_shown_written_and_told_to_dbt(
    warehouse: Warehouse, env: dict[str, str], project: Project
) -> None:
    path = project.source(SOURCE, "unit")
    sync(warehouse.loader_dsn, [records({"id": 1, "email": "a@b.c"})], write="merge", primary_key="id")

    shown = project.run("contract", "infer", "unit.things", "--offline", **env)
    assert shown.returncode == 0, shown.stderr
    assert "+        email: {type: text, pii: personal}  # guess: personal by its name" in shown.stdout
    assert "Nothing is written: give --yes" in shown.stdout
    assert path.read_text(encoding="utf-8") == SOURCE

    assert project.run("contract", "infer", "unit", "--offline", "--yes", **env).returncode == 0
    after = path.read_text(encoding="utf-8")
    assert after.startswith(SOURCE)
    again = project.run("contract", "infer", "unit", "--offline", **env)
    assert again.stdout.endswith("declares every column that was synced\n")

    checked = project.run("contract", "write", "--check")
    assert checked.returncode == 8
    assert "differs dbt_project/models/staging/unit/unit.yml" in checked.stdout
    assert project.run("contract", "write", "unit").returncode == 0
    assert project.run("contract", "write", "--check").returncode == 0
    made = project.root / "dbt_project/models/staging/unit/stg_unit__things.sql"
    made.write_text("select 1 as edited_by_hand", encoding="utf-8")
    assert project.run("contract", "write").returncode == 0
    assert made.read_text(encoding="utf-8") == "select 1 as edited_by_hand"
    assert project.run("contract", "mart", "unit.things", "sales").returncode == 0
    assert project.run("contract", "mart", "unit.things", "sales").returncode == 3
