"""`headwater export` as the processes that others start."""

import hmac
import json
from pathlib import Path

import pytest

from connectors.errors import ConfigError
from connectors.export import docker
from platform_assets.warehouse import Warehouse
from tests.cli.conftest import Project, project
from tests.export.serving import ORDERS, SOURCE, TOKEN, shop
from tests.support import sql

__all__ = ["project"]
ROOT = Path(__file__).parents[2]


def test_a_tap_takes_its_settings_from_a_file_and_masks_no_data(project: Project, tmp_path: Path) -> None:
    project.source(SOURCE)
    leaky = [{**ORDERS[0], "note": f"the token is {TOKEN}"}]
    catalog = tmp_path / "catalog.json"
    catalog.write_text(json.dumps({"streams": [{"stream": "orders", "selected": True, "schema": {}}]}))
    with shop(leaky) as api:
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"SHOP_URL": api.url, "SHOP_TOKEN": TOKEN}))
        ended = project.run("export", "singer", "shop", "--config", str(config), "--catalog", str(catalog))
    assert ended.returncode == 0, ended.stderr
    said = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [one["type"] for one in said] == ["SCHEMA", "RECORD", "STATE"]
    assert said[1]["record"] == leaky[0]


def test_what_is_hashed_or_blocked_by_an_operator_leaves_by_no_export(
    project: Project, warehouse: Warehouse, env: dict[str, str]
) -> None:
    source = SOURCE.replace("    - {name: lost, path: /lost, records: data}\n", "")
    project.source(source.replace("columns: {", "columns: {cents: {rule: hash, key: env:HASH_KEY}, "))
    sql.run(
        warehouse.admin_dsn,
        "insert into ops.column_rules (source, stream, column_name, reason, actor) "
        "values ('shop', 'orders', 'note', 'no purpose for it', 'test')",
    )
    with shop() as api:
        ended = project.run("export", "singer", "shop", **env, SHOP_URL=api.url, SHOP_TOKEN=TOKEN, HASH_KEY="k" * 16)
    assert ended.returncode == 0, ended.stderr
    said = [json.loads(line) for line in ended.stdout.splitlines()]
    assert {tuple(one["record"]) for one in said if one["type"] == "RECORD"} == {("id", "cents", "updated_at")}
    (schema,) = [one["schema"]["properties"] for one in said if one["type"] == "SCHEMA"]
    assert set(schema) == {"id", "cents", "updated_at"}
    assert schema["cents"] == {"type": ["null", "string"]}
    hashed = {one["record"]["id"]: one["record"]["cents"] for one in said if one["type"] == "RECORD"}
    assert hashed[1] == hmac.digest(b"k" * 16, b"100", "sha256").hex()


def test_a_source_without_its_settings_says_which_and_traces_it(project: Project, tmp_path: Path) -> None:
    project.source(SOURCE)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"SHOP_URL": "http://127.0.0.1:9"}))
    ended = project.run("export", "airbyte", "shop", "discover", "--config", str(config))
    assert ended.returncode == ConfigError.exit_code
    trace = json.loads(ended.stdout)["trace"]["error"]
    assert trace["failure_type"] == "config_error"
    assert "SHOP_TOKEN is missing" in trace["message"]
    checked = project.run("export", "airbyte", "shop", "check", "--config", str(config))
    assert checked.returncode == 0
    assert json.loads(checked.stdout)["connectionStatus"]["status"] == "FAILED"


def test_a_kind_that_is_a_program_of_others_is_not_exported(project: Project) -> None:
    project.source(
        "type: platform_assets.components.Source\nattributes:\n  source: shop\n  owner: team:data\n"
        "  connector: {kind: files, url: /data}\n  streams: [{name: orders, path: '*.csv'}]\n"
    )
    ended = project.run("export", "singer", "shop")
    assert ended.returncode == ConfigError.exit_code
    assert "kind files is not exported" in ended.stderr


LEDGER = """
from connectors.custom import RowsConnector


class Ledger(RowsConnector):
    def rows(self, stream, since, until):
        yield {"id": 1}

    def read(self, stream, state, context):
        yield from super().read(stream, state, context)
        if stream.name == "torn":
            raise KeyError(f"no page for {__import__('os').environ['LEDGER_TOKEN']}")
"""


def test_a_bespoke_source_that_breaks_ends_incomplete_with_a_trace_and_shows_no_secret(
    project: Project, tmp_path: Path
) -> None:
    (project.root / "connectors" / "custom" / "ledger_of_test.py").write_text(LEDGER)
    project.source(
        "type: platform_assets.components.Source\nattributes:\n  source: shop\n  owner: team:data\n"
        "  connector: {kind: python, module: connectors.custom.ledger_of_test}\n"
        "  streams: [{name: torn}, {name: whole}]\n"
    )
    catalog = tmp_path / "catalog.json"
    catalog.write_text(json.dumps({"streams": [{"stream": {"name": name}} for name in ("torn", "whole")]}))
    ended = project.run("export", "airbyte", "shop", "read", "--catalog", str(catalog), LEDGER_TOKEN=TOKEN)
    assert ended.returncode == 1, ended.stderr
    said = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [one["record"]["stream"] for one in said if one["type"] == "RECORD"] == ["torn", "whole"]
    traces = [one["trace"] for one in said if one["type"] == "TRACE"]
    ends = [one["stream_status"]["status"] for one in traces if one["type"] == "STREAM_STATUS"]
    assert ends == ["STARTED", "RUNNING", "INCOMPLETE", "STARTED", "RUNNING", "COMPLETE"]
    assert {one["error"]["failure_type"] for one in traces if one["type"] == "ERROR"} == {"system_error"}
    assert "KeyError" in ended.stdout
    assert TOKEN not in ended.stdout + ended.stderr


def test_a_webhook_inbox_is_a_tap_that_goes_on_from_its_state(
    project: Project, warehouse: Warehouse, env: dict[str, str], tmp_path: Path
) -> None:
    project.source(
        "type: platform_assets.components.Source\nattributes:\n  source: hub\n  owner: team:data\n"
        "  connector: {kind: webhook, scheme: github, secret: env:HUB_SECRET}\n"
        "  streams: [{name: pushes, events: push}]\n"
    )
    state = tmp_path / "state.json"
    state.write_text("{}")
    for number in (1, 2):
        sql.run(
            warehouse.loader_dsn,
            "insert into ops.webhook_inbox (delivery_id, source, event_type, body) "
            f"values ('d{number}', 'hub', 'push', '{{\"ref\": {number}}}')",
        )
        ended = project.run("export", "singer", "hub", "--state", str(state), **env, HUB_SECRET=TOKEN)
        assert ended.returncode == 0, ended.stderr
        said = [json.loads(line) for line in ended.stdout.splitlines()]
        assert [one["record"]["ref"] for one in said if one["type"] == "RECORD"] == [number]
        state.write_text(json.dumps(said[-1]["value"]))


@pytest.mark.parametrize("protocol", ["singer", "airbyte"])
def test_a_dockerfile_copies_what_is_there_and_replaces_no_file(tmp_path: Path, protocol: str) -> None:
    file = tmp_path / "Dockerfile.shop"
    docker.write(file, "shop", protocol, ROOT)  # type: ignore[arg-type]  a parameter of the test
    text = file.read_text()
    for line in text.splitlines():
        if line.startswith("COPY"):
            assert all(list(ROOT.glob(name.removeprefix("./"))) for name in line.split()[1:-1]), line
    assert f'ENTRYPOINT ["/headwater/.venv/bin/headwater", "export", "{protocol}", "shop"]' in text
    with pytest.raises(ConfigError, match="there already"):
        docker.write(file, "shop", protocol, ROOT)  # type: ignore[arg-type]  a parameter of the test
