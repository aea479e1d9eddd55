"""`headwater dbt build`: the whole command on the demo's streams."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from click import Option

from connectors.errors import MAX_LINES, ConfigError
from platform_assets.cli import main
from platform_assets.cli.dbt import BUILDING, VALUED, split
from platform_assets.dbt import beside
from platform_assets.settings import PROJECT_ROOT
from platform_assets.warehouse import Warehouse
from tests.dbt.processes import PROJECT, edit, project_copy


def headwater(env: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "platform_assets.cli", "dbt", *words]
    return subprocess.run(command, env=env, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def count(warehouse: Warehouse, relation: str) -> object:
    with psycopg.connect(warehouse.transformer_dsn) as session:
        return session.execute(f"select count(*) from {relation}".encode()).fetchone()


@pytest.mark.slow
def test_a_build_publishes_marts_once_again_slim_and_can_be_taken_back(env: dict[str, str], raw: Warehouse) -> None:
    whole = headwater(env, "build")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "published marts.airlines" in whole.stdout
    events = count(raw, "marts.events")

    slim = headwater(env, "build", "--slim")
    assert slim.returncode == 0, slim.stdout + slim.stderr
    assert "Nothing to do" in slim.stdout
    assert "published" not in slim.stdout

    # an incremental mart goes on from what is served
    again = headwater(env, "build", "-s", "events")
    assert "published marts.events" in again.stdout, again.stdout
    back = headwater(env, "rollback", "marts.events")
    assert (back.returncode, os.linesep in back.stdout) == (0, True), back.stderr
    assert count(raw, "marts.events") == events
    assert headwater(env, "rollback", "marts.events").returncode == 3


CARRIERS_SQL = """\
select carrier_code, airline_name from {{ ref('airlines') }}
"""
CARRIERS_YAML = """\
models:
  - name: carriers
    columns:
      - {name: carrier_code, data_type: text, description: The code.}
      - {name: airline_name, data_type: text, description: The name.}
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_slim_build_defers_to_unchanged_parents_takes_children_along_and_serves_no_orphans(
    env: dict[str, str], raw: Warehouse, tmp_path: Path
) -> None:
    project = project_copy(tmp_path)
    marts = project / "models/marts"
    (marts / "reference/carriers.sql").write_text(CARRIERS_SQL, encoding="utf-8")
    (marts / "reference/carriers.yml").write_text(CARRIERS_YAML, encoding="utf-8")
    env = env | {"DBT_PROJECT_DIR": str(project), "DBT_PROFILES_DIR": str(project)}
    whole = headwater(env, "build")
    assert whole.returncode == 0, whole.stdout + whole.stderr

    edit(marts / "reference/carriers.sql", "airline_name from", "upper(airline_name) as airline_name from")
    alone = headwater(env, "build", "--slim")
    assert published(alone) == {"carriers"}, alone.stdout
    # the parent was read where it is served: it was not built beside
    assert count(raw, "marts.carriers") == count(raw, "marts.airlines")

    edit(marts / "reference/airlines.sql", "select * from final", "select * from final where true")
    both = headwater(env, "build", "--slim")
    assert published(both) == {"airlines", "carriers"}, both.stdout

    edit(marts / "reference/airlines.sql", "where true", "where carrier_code = 'UA'")
    before = count(raw, "marts.airlines")
    cut = headwater(env, "build", "--slim")
    assert cut.returncode == 1
    assert published(cut) == set()
    assert "not published marts.airlines: test relationships_flights_carrier_code" in cut.stdout
    assert "not published marts.carriers: reads marts.airlines" in cut.stdout
    assert (count(raw, "marts.airlines"), count(raw, "marts__next.airlines")) == (before, (1,))


def published(done: "subprocess.CompletedProcess[str]") -> set[str]:
    return set(re.findall(r"^published marts\.(\w+)$", done.stdout, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_whatever_else_builds_keeps_off_the_marts_unless_told(env: dict[str, str], raw: Warehouse) -> None:
    gone = "Missing from the source since 2024-01-01 00:00 UTC: NULL in every row synced since."
    with psycopg.connect(raw.loader_dsn) as session:
        session.execute(f"comment on column raw_nyc_reference.airlines.name is '{gone}'".encode())
    staged = headwater(env, "run", "-s", "stg_nyc_reference__airlines")
    assert staged.returncode == 0, staged.stdout + staged.stderr
    assert comment(raw, "staging.stg_nyc_reference__airlines", 2).startswith(gone)
    assert count(raw, "staging.stg_nyc_reference__airlines") == count(raw, "raw_nyc_reference.airlines")

    refused = headwater(env, "--no-use-colors", "run", "-s", "+airlines")
    assert refused.returncode == 3
    assert "would change marts.airlines before any test has passed" in refused.stderr
    assert "`headwater dbt build`" in refused.stderr
    assert relation(raw, "marts.airlines") is None

    # the tests of marts that are not there yet cannot run, and hold nothing
    built = headwater(env, "--no-use-colors", "--log-level", "info", "build", "-s", "+airlines")
    assert published(built) == {"airlines"}, built.stdout + built.stderr
    assert comment(raw, "staging.stg_nyc_reference__airlines", 2).startswith(gone)
    assert relation(raw, "marts__next.airlines") is None

    in_place = headwater(env, "run", "-s", "+planes", "--in-place")
    assert in_place.returncode == 0, in_place.stdout + in_place.stderr
    assert relation(raw, "marts.planes") is not None

    wrong = headwater(env, "build", "--nonsense")
    assert wrong.returncode == 2
    assert "No such option" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def comment(warehouse: Warehouse, relation: str, place: int) -> str:
    """Of the column at this place, from 1."""
    with psycopg.connect(warehouse.transformer_dsn) as session:
        row = session.execute("select col_description(%s::regclass, %s)", [relation, place]).fetchone()
    assert row is not None
    return str(row[0])


def relation(warehouse: Warehouse, name: str) -> object:
    with psycopg.connect(warehouse.transformer_dsn) as session:
        row = session.execute("select to_regclass(%s)::text", [name]).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.slow
def test_unit_tests_run_when_they_are_asked_for(env: dict[str, str], raw: Warehouse) -> None:
    assert headwater(env, "build", "-s", "+customers").returncode == 0
    assert count(raw, "marts.customers") == (3,)
    asked = headwater(env, "build", "-s", "customers", "--unit-tests")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert re.search(r"PASS \w+::test_", asked.stdout), asked.stdout
    unasked = headwater(env, "build", "-s", "customers")
    assert "published marts.customers" in unasked.stdout
    assert "::test_" not in unasked.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("build -s airlines", "build"),
        ("--no-use-colors build -s run", "build"),
        ("--log-level debug run", "run"),
        ("--log-level=debug run", "run"),
        ("-dqt warehouse run", "run"),
        ("-twarehouse run", "run"),
        ("-t build run", "run"),
        ("--version", ""),
        ("--target", ""),
        ("", ""),
    ],
)
def test_the_subcommand_is_found_behind_dbts_global_flags(words: str, found: str) -> None:
    flags, name, rest = split(words.split())
    assert name == found
    assert [*flags, *([name] if name else []), *rest] == words.split()


def test_the_global_flags_with_a_value_are_dbts_own() -> None:
    from dbt.cli.main import cli

    valued = {option for one in cli.params if isinstance(one, Option) and not one.is_flag for option in one.opts}
    assert valued == VALUED
    assert {option for option in VALUED if not option.startswith("--")} == {"-r", "-t"}
    assert set(cli.commands) >= BUILDING


def test_a_retry_in_place_is_refused_before_the_warehouse_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dbt", "-q", "retry"]) == 3
    assert "headwater dbt build -s <model>" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        ("build --empty -s airlines", {}, "--empty"),
        ("run -s stg_nyc_reference__airlines --empty", {}, "--empty"),
        ("build --sample '3 days'", {}, "--sample"),
        ("build --sample='3 days' --no-empty", {}, "--sample"),
        ("build", {"DBT_EMPTY": "1"}, "DBT_EMPTY"),
        ("build", {"DBT_ENGINE_EMPTY": "true"}, "DBT_EMPTY"),
        ("run", {"DBT_SAMPLE": "3 days"}, "DBT_SAMPLE"),
        ("build", {"DBT_ENGINE_SAMPLE": "3 days"}, "DBT_SAMPLE"),
        ("build --full-refresh --event-time-start 2024-01-01 --event-time-end 2024-01-02", {}, "--event-time-start"),
    ],
)
def test_what_would_be_built_without_all_its_rows_is_refused(
    words: str, variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from platform_assets.dbt import audited

    for name, value in {"DBT_PROFILES_DIR": str(PROJECT), **variables}.items():
        monkeypatch.setenv(name, value)
    name, *rest = shlex.split(words)
    with pytest.raises(ConfigError, match=f"headwater dbt {name}: .*{said}") as refused:
        audited.options_of(name, rest)
    assert "--in-place" in refused.value.hint
    assert len(str(refused.value).splitlines()) <= MAX_LINES


def test_what_leaves_no_row_out_is_let_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from platform_assets.dbt import audited

    monkeypatch.setenv("DBT_PROFILES_DIR", str(PROJECT))
    monkeypatch.setenv("DBT_EMPTY", "0")
    monkeypatch.setenv("DBT_ENGINE_SAMPLE", "")
    assert audited.options_of("build", ["--empty", "--no-empty"])["empty"] is False
    assert audited.options_of("build", ["--event-time-start", "2024-01-01", "--event-time-end", "2024-01-02"])
    assert audited.options_of("clone", ["--full-refresh"])["full_refresh"]
    beside.refuse_partial("here", os.environ)


def test_the_variables_that_leave_rows_out_are_dbts_own() -> None:
    from dbt.cli.main import cli

    named = [one.envvar for one in cli.commands["build"].params if one.name in ("empty", "sample")]
    assert sorted(name for names in named for name in names or ()) == sorted(beside.PARTIAL)


@pytest.mark.slow
def test_an_empty_build_leaves_what_is_served(env: dict[str, str], raw: Warehouse) -> None:
    assert published(headwater(env, "build", "-s", "+airlines")) == {"airlines"}
    before = count(raw, "marts.airlines")
    for variables, words in (({}, ("--empty", "build")), ({"DBT_EMPTY": "1"}, ("build",))):
        empty = headwater(env | variables, *words, "-s", "+airlines")
        assert empty.returncode == 3, empty.stdout + empty.stderr
        assert "without all of their rows" in empty.stderr
        assert (count(raw, "marts.airlines"), count(raw, "staging.stg_nyc_reference__airlines")) == (before, before)


@pytest.mark.slow
def test_plain_dbt_builds_in_a_shell_that_has_the_environment(env: dict[str, str], raw: Warehouse) -> None:
    script = """
        eval "$(python -m platform_assets.dbt)"
        cd dbt_project
        dbt build -s stg_nyc_reference__airlines --target-path "$1" --log-path "$1"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with TemporaryDirectory() as target:
        done = subprocess.run(
            ["bash", "-ec", script, "dbt", target],
            env=env | {"PATH": path}, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert count(raw, "staging.stg_nyc_reference__airlines") == count(raw, "raw_nyc_reference.airlines")


@pytest.mark.slow
def test_the_projects_pages_are_made_and_served(env: dict[str, str], raw: Warehouse, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    made = headwater(env, "docs", "generate", "--target-path", target)
    assert made.returncode == 0, made.stdout + made.stderr
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["docs", "serve", "--target-path", target, "--host", "127.0.0.1", "--port", str(port), "--no-browser"]
    serving = subprocess.Popen(
        [sys.executable, "-m", "platform_assets.cli", "dbt", *words],
        env=env, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert serving.stdout is not None
        assert any("Serving docs" in line for line in serving.stdout)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/catalog.json", timeout=30) as answer:
            catalog = json.load(answer)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            page = answer.read()
    finally:
        os.killpg(serving.pid, signal.SIGTERM)
        serving.wait(30)
    assert "source.headwater.nyc_flights.flights" in catalog["sources"]
    assert b"<html" in page
