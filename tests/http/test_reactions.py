"""What an answer means, all the way: from its status and body to its class, to the op, the run and the ledger."""

from pathlib import Path

import dagster as dg
import pytest

from platform_assets.warehouse import Warehouse
from tests.http.serving import Exchange, records, serving
from tests.ingest.conftest import load
from tests.support import sql

# stream: its class (none: it succeeds), how often its op is tried again
EXPECTED: dict[str, tuple[str | None, int]] = {
    "fine": (None, 0),
    "busy_once": (None, 1),
    "busy": ("rate_limited", 1),
    "down": ("transient", 1),
    "forbidden": ("auth", 0),
    "missing": ("config", 0),
    "strange": ("source", 0),
    "huge": ("resource", 0),
    "being_moved": ("transient", 1),
    "throttled_with_200": ("rate_limited", 1),
    "broken_for_good": ("source", 0),
}

SOURCE = """\
type: platform_assets.components.Source
attributes:
  source: moody
  owner: team:data
  connector:
    kind: rest
    base_url: {url}
    retries: {{attempts: 1}}
    rate_limit: {{max_wait: PT0S}}
    breaker: {{failures: 100}}
    max_response_mb: 1
    errors:
      - {{status: 404, body: being moved, becomes: transient}}
      - {{status: 200, body: '"code": *"THROTTLED"', becomes: rate_limited}}
      - {{status: 503, body: for good, becomes: source}}
  streams:
"""


def answer(exchange: Exchange, asked: dict[str, int]) -> None:
    name = exchange.path.strip("/")
    asked[name] = asked.get(name, 0) + 1
    match name:
        case "busy" | "busy_once" if name == "busy" or asked[name] == 1:
            exchange.json({}, 429, retry_after="0")
        case "down":
            exchange.json({}, 503, retry_after="0")
        case "broken_for_good":
            exchange.json({"error": "for good"}, 503, retry_after="0")
        case "forbidden":
            exchange.json({}, 401)
        case "missing":
            exchange.json({}, 404)
        case "being_moved":
            exchange.json({"error": "the tenant is being moved"}, 404, retry_after="0")
        case "strange":
            exchange.json({"error": "shard 3 is down"})
        case "throttled_with_200":
            exchange.json({"code": "THROTTLED"}, retry_after="0")
        case "huge":
            exchange.send(b"[" + b" " * 2_000_000 + b"]")
        case _:
            exchange.json(records(0, 2))


def test_every_class_of_answer_has_its_reaction_in_the_op_the_run_and_the_ledger(
    warehouse: Warehouse, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    asked: dict[str, int] = {}
    with serving(lambda e: answer(e, asked)) as server, dg.DagsterInstance.ephemeral() as instance:
        streams = "".join(f"    - {{name: {name}, path: /{name}, retries: 1}}\n" for name in EXPECTED)
        path = tmp_path / "platform_assets" / "defs" / "ingest" / "moody" / "defs.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(SOURCE.format(url=server.url) + streams, encoding="utf-8")
        job = load(tmp_path).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, raise_on_error=False)

    def steps(kind: dg.DagsterEventType) -> list[str]:
        return [
            (event.step_key or "").removeprefix("moody__") for event in result.all_events if event.event_type == kind
        ]

    failures = {
        (event.step_key or "").removeprefix("moody__"): event.event_specific_data.user_failure_data.metadata
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.STEP_FAILURE
    }
    retried = steps(dg.DagsterEventType.STEP_UP_FOR_RETRY)
    seen = {
        name: (failures[name]["failure_class"].value if name in failures else None, retried.count(name))
        for name in EXPECTED
    }
    assert seen == EXPECTED
    # the siblings of what fails are whole, and what fails materializes nothing
    good = {name for name, (kind, _) in EXPECTED.items() if kind is None}
    materialized = result.get_asset_materialization_events()
    assert {event.asset_key.path[-1] for event in materialized if event.asset_key is not None} == good
    ledger = sql.run(warehouse.loader_dsn, "select stream, failure_class, count(*) from ops.syncs group by 1, 2")
    rows = {(name, kind or "rate_limited", tries + 1) for name, (kind, tries) in EXPECTED.items() if kind}
    assert set(ledger) == rows | {("fine", None, 1), ("busy_once", None, 1), ("busy_once", "rate_limited", 1)}
