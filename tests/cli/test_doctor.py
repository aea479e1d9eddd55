"""`headwater doctor` on each fault: cause, place and next step in at most six lines, and the documented exit code."""

import json
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from platform_assets.cli.checkup.machine import check_python
from tests.cli.conftest import GOOD, Project
from tests.support.servers import TestServer

SHOP = {"SHOP_URL": "http://127.0.0.1:9", "SHOP_TOKEN": "tok_9f8e7d6c5b4a"}
SPOILT = "platform_assets/defs/ingest/shop/defs.yaml"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def doctor(project: Project, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """On a port that is free and without asking the sources, unless the words say otherwise."""
    port = () if "--port" in words else ("--port", str(free_port()))
    return project.run("doctor", *port, *words, **env)


def only_problem(done: "subprocess.CompletedProcess[str]", exit_code: int) -> str:
    """The one problem of the report, its lines joined by spaces."""
    assert done.stderr == ""
    blocks = re.split(r"^(?=\S)", done.stdout, flags=re.MULTILINE)
    problems = [block for block in blocks if block.startswith("problem ")]
    assert len(problems) == 1, done.stdout
    lines = problems[0].strip().splitlines()
    assert 2 <= len(lines) <= 6
    assert done.returncode == exit_code, done.stdout
    assert f"exit code {exit_code} is that of the first" in done.stdout
    return " ".join(" ".join(lines).split())


def test_a_sound_project_has_no_problem(project: Project) -> None:
    project.source(GOOD)
    done = doctor(project, "--offline", **SHOP)
    assert done.returncode == 0, done.stdout
    assert "problem " not in done.stdout.replace("no problem", "")
    assert not (project.root.parent / "home").exists(), "the doctor changes nothing"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("write: merge", "wrte: merge", f"{SPOILT}: streams[orders].wrte: unknown key Did you mean 'write'?"),
        ("base_url:", "base_ulr:", f"{SPOILT}: connector.base_ulr: unknown key Did you mean 'base_url'?"),
        ("write: merge", "write: upsert", f"{SPOILT}: streams[orders].write: Input should be"),
        ("kind: rest", "kind: rset", f"{SPOILT}: connector.kind: unknown kind 'rset' Did you mean 'rest'?"),
        (
            "components.Source",
            "components.Sorce",
            f"{SPOILT}: type: unknown component 'platform_assets.components.Sorce' Did you mean 'platform_assets.comp",
        ),
        ("token: env:SHOP_TOKEN", "token: sk_live_4242", f"{SPOILT}: connector.auth.token: a secret must be"),
        ("  source: shop", "  source: [shop", f"{SPOILT}, line "),
        ("  streams:", "  streams: 3\n  unused:", f"{SPOILT}: streams: needs at least one stream"),
        ("write: merge", "write: merge, checks: [{type: volum}]", "checks[0].type: unknown check 'volum'"),
        (
            "write: merge",
            "write: merge, schedule: hourly",
            f"{SPOILT}: streams[orders].schedule: is no schedule",
        ),
    ],
    ids=[
        "key of a stream",
        "key of the connector",
        "value",
        "kind",
        "component",
        "literal secret",
        "yaml",
        "type",
        "check",
        "schedule",
    ],
)
def test_a_wrong_source_file_names_file_stream_and_key(project: Project, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    project.source(GOOD.replace(old, new))
    done = doctor(project, "--offline", **SHOP)
    said = only_problem(done, 3)
    assert expected in said
    assert "sk_live" not in done.stdout


def test_one_wrong_file_does_not_hide_the_others(project: Project) -> None:
    project.source(GOOD.replace("kind: rest", "kind: rset"))
    project.source(GOOD.replace("source: shop", "source: depot"), folder="depot")
    done = doctor(project, "--offline", **SHOP)
    assert "unknown kind 'rset'" in only_problem(done, 3)
    assert "depot: 1 stream of kind rest" in done.stdout


def test_two_files_with_one_source_are_refused(project: Project) -> None:
    project.source(GOOD)
    project.source(GOOD, folder="twin")
    said = only_problem(doctor(project, "--offline", **SHOP), 3)
    assert "twin/defs.yaml: source 'shop' is declared in platform_assets/defs/ingest/shop/defs.yaml already" in said


def test_a_missing_variable_names_the_key_that_needs_it(project: Project) -> None:
    project.source(GOOD)
    said = only_problem(doctor(project, "--offline", SHOP_URL=SHOP["SHOP_URL"]), 3)
    assert "shop: connector.auth.token: environment variable SHOP_TOKEN is not set" in said
    assert "Set SHOP_TOKEN in .env" in said


def test_a_variable_of_dotenv_counts(project: Project) -> None:
    project.source(GOOD)
    dotenv = project.root / ".env"
    dotenv.write_text("".join(f"{name}={value}\n" for name, value in SHOP.items()), encoding="utf-8")
    dotenv.chmod(0o600)
    assert doctor(project, "--offline").returncode == 0


def test_the_demo_sources_may_be_without_variables(project: Project) -> None:
    project.source(GOOD.replace("SHOP_URL", "FLIGHTS_API_URL").replace("SHOP_TOKEN", "FLIGHTS_API_TOKEN"))
    done = doctor(project)
    assert done.returncode == 0
    assert done.stdout.count("shop: of the demo: `make demo` and `make ui` start them") == 2


def test_a_dotenv_that_others_may_read_is_refused(project: Project) -> None:
    dotenv = project.root / ".env"
    dotenv.write_text("A=1\n", encoding="utf-8")
    dotenv.chmod(0o644)
    said = only_problem(doctor(project, "--offline"), 3)
    assert "has mode 0644" in said
    assert f"chmod 600 {dotenv}" in said


def test_a_broken_line_of_dotenv_is_named(project: Project) -> None:
    dotenv = project.root / ".env"
    dotenv.write_text('A=1\nB="open\n', encoding="utf-8")
    dotenv.chmod(0o600)
    assert f"{dotenv}, line 2: is not NAME=value" in only_problem(doctor(project, "--offline"), 3)


def test_a_wrong_warehouse_password_is_an_auth_error(project: Project, server: TestServer) -> None:
    url = server.admin_url("postgres")
    password = server.warehouse.logins["admin"].password
    assert f":{password}@" in url
    done = doctor(project, "--offline", HEADWATER_WAREHOUSE_URL=url.replace(password, "wrong-password"))
    said = only_problem(done, 4)
    assert "password authentication failed" in said
    assert "HEADWATER_WAREHOUSE_URL" in said
    assert "wrong-password" not in done.stdout


def test_a_warehouse_that_does_not_answer_is_transient(project: Project) -> None:
    url = f"postgresql://me:secret-word@127.0.0.1:{free_port()}/x"
    said = only_problem(doctor(project, "--offline", HEADWATER_WAREHOUSE_URL=url), 6)
    assert "no answer" in said
    assert "secret-word" not in said


def test_a_database_that_is_not_made_yet_is_no_problem(project: Project, server: TestServer) -> None:
    done = doctor(project, "--offline", HEADWATER_WAREHOUSE_URL=server.admin_url("not_made_yet"))
    assert done.returncode == 0, done.stdout
    assert "its database not_made_yet is made by the first run" in done.stdout


def test_a_file_without_a_source_is_said(project: Project) -> None:
    project.source("# later\n")
    done = doctor(project, "--offline")
    assert done.returncode == 0
    assert f"skipped  source files    {SPOILT}: declares no source" in done.stdout


def test_a_warehouse_of_another_make_is_refused(project: Project) -> None:
    done = doctor(project, "--offline", HEADWATER_WAREHOUSE_URL="mysql://me:secret-word@127.0.0.1/x")
    said = only_problem(done, 3)
    assert "HEADWATER_WAREHOUSE_URL: is not a PostgreSQL URL" in said
    assert "secret-word" not in done.stdout


def test_a_bootstrapped_warehouse_shows_its_version(project: Project, env: dict[str, str], warehouse: object) -> None:
    assert warehouse is not None
    done = doctor(project, "--offline", **{name: env[name] for name in env if name.startswith("HEADWATER_")})
    assert done.returncode == 0, done.stdout
    assert re.search(r"^ok +ops tables +version \d+$", done.stdout, re.MULTILINE)
    assert re.search(r"^ok +dagster storage +answers at ", done.stdout, re.MULTILINE)


def test_a_wrong_password_of_a_role_is_an_auth_error(project: Project, env: dict[str, str], warehouse: object) -> None:
    assert warehouse is not None
    given = {name: env[name] for name in env if name.startswith("HEADWATER_")}
    done = doctor(project, "--offline", **{**given, "HEADWATER_LOADER_PASSWORD": "wrong-password"})
    said = only_problem(done, 4)
    assert "user headwater_loader was refused" in said
    assert "wrong-password" not in done.stdout


def test_an_edited_migration_is_named(project: Project, env: dict[str, str], warehouse: object) -> None:
    assert warehouse is not None
    migration = project.root / "platform_assets" / "warehouse" / "migrations" / "0001_ops.sql"
    migration.write_text(migration.read_text(encoding="utf-8") + "-- later\n", encoding="utf-8")
    done = doctor(project, "--offline", **{name: env[name] for name in env if name.startswith("HEADWATER_")})
    assert "migrations/0001_ops.sql: was edited after it was applied" in only_problem(done, 3)


def test_a_taken_port_names_who_holds_it(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = only_problem(doctor(project, "--offline", "--port", str(port)), 9)
    assert f"127.0.0.1:{port}: " in said
    assert "take another free port" in said


def test_a_missing_make_is_named(project: Project, tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    said = only_problem(doctor(project, "--offline", PATH=str(empty)), 3)
    assert "PATH: there is no make" in said
    assert "apt install make" in said


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 14, 0), (4, 0, 0)])
def test_a_wrong_python_is_named_with_its_version(version: tuple[int, int, int]) -> None:
    (found,) = check_python(version)
    assert found.exit_code == 3
    assert f"is Python {version[0]}.{version[1]}.{version[2]}; Headwater needs 3.11, 3.12 or 3.13" in found.lines[0]


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 9), (3, 13, 1)])
def test_a_right_python_passes(version: tuple[int, int, int]) -> None:
    assert [found.status for found in check_python(version)] == ["ok"]


def test_too_little_disk_is_a_resource_error(project: Project) -> None:
    said = only_problem(doctor(project, "--offline", "--min-free-mb", "999999999"), 9)
    assert "at least 999,999,999 MB are needed" in said


def test_a_package_of_another_version_is_named(project: Project) -> None:
    lock = project.root / "uv.lock"
    text = lock.read_text(encoding="utf-8")
    lock.write_text(re.sub(r'(name = "typer"\nversion = )"[^"]+"', r'\1"9.9.9"', text), encoding="utf-8")
    said = only_problem(doctor(project, "--offline"), 3)
    assert re.search(r"uv\.lock: typer is \S+, locked 9\.9\.9 Run `make setup`", said)


@pytest.mark.slow
def test_a_source_that_is_down_is_transient(project: Project) -> None:
    project.source(GOOD)
    said = only_problem(doctor(project, **{**SHOP, "SHOP_URL": f"http://127.0.0.1:{free_port()}"}), 6)
    assert "problem source answers shop" in said


def test_a_program_that_is_not_installed_yet_is_not_installed_by_the_doctor(project: Project) -> None:
    project.source(
        "type: platform_assets.components.Source\n"
        "attributes: {source: shop, owner: 'team:data', connector: {kind: singer, package: tap-of-nobody==1.0},"
        " streams: [{name: orders}]}\n"
    )
    done = doctor(project)
    assert done.returncode == 0, done.stdout
    assert "shop: its program is not installed yet; `headwater connectors install`" in done.stdout


def test_offline_asks_no_source(project: Project) -> None:
    project.source(GOOD)
    done = doctor(project, "--offline", **SHOP)
    assert "no source was asked, because of --offline" in done.stdout


def test_json_carries_the_same_findings_for_programs(project: Project) -> None:
    project.source(GOOD.replace("wrte", "write").replace("kind: rest", "kind: rset"))
    done = doctor(project, "--offline", "--json", **SHOP)
    report = json.loads(done.stdout)
    (problem,) = [finding for finding in report["findings"] if finding["status"] == "problem"]
    assert report["exit_code"] == done.returncode == 3
    assert problem["failure_class"] == "config"
    assert problem["where"] == f"{SPOILT}: connector.kind"
    assert problem["measured"] == "unknown kind 'rset'"
    assert problem["next_step"] == "Did you mean 'rest'?"


def test_the_first_problem_decides_the_exit_code(project: Project) -> None:
    project.source(GOOD.replace("kind: rest", "kind: rset"))
    done = doctor(project, "--offline", "--min-free-mb", "999999999", **SHOP)
    assert done.returncode == 9
    assert "2 problems; exit code 9 is that of the first" in done.stdout


@pytest.mark.slow
def test_a_dbt_project_that_does_not_parse_is_named(project: Project) -> None:
    shutil.rmtree(project.root / "dbt_project")
    shutil.copytree(Path(__file__).parents[2] / "dbt_project", project.root / "dbt_project")
    (project.root / "dbt_project" / "models" / "broken.yml").write_text("models: [}\n", encoding="utf-8")
    said = only_problem(doctor(project, "--offline", "--deep"), 3)
    assert "does not parse" in said
    assert "headwater dbt parse" in said


def test_sling_without_its_binary_is_named(project: Project) -> None:
    project.source(
        "type: platform_assets.components.Source\n"
        "attributes: {source: shop, owner: 'team:data', connector: {kind: sling, connection: env:SHOP_URL},"
        " streams: [{name: orders, write: replace}]}\n"
    )
    done = doctor(project, "--offline", SHOP_URL="postgresql://a@b/c", SLING_BINARY="/nowhere/sling")
    assert "sling: SLING_BINARY names no executable: /nowhere/sling" in only_problem(done, 3)
