"""What dbt said when it failed, as one of the platform's errors."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.errors import ConfigError, ContractError, HeadwaterError, LoaderError
from platform_assets.dbt.graph import Graph

_UNREACHABLE = re.compile(
    r"could not connect|connection (refused|reset|to server)|server closed the connection|terminating connection"
    r"|the database system is|too many clients|deadlock detected|could not translate host name",
    re.IGNORECASE,
)
_NEVER_SYNCED = re.compile(r'relation "raw_(\w+)\.(\w+)" does not exist')
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Result:
    """One node of run_results.json that did not do well. status: error, fail, skipped."""

    unique_id: str
    status: str
    message: str


def dbt_error(graph: Graph, target: Path, said: str) -> HeadwaterError:
    """The error behind a failed dbt process.

    LoaderError when the warehouse went away; ContractError when a test failed or a model broke its contract;
    ConfigError when dbt did not come as far as a model, or a model's SQL is wrong.
    """
    results = _bad_results(target)
    broken = [result for result in results if result.status in ("error", "runtime error")]
    failed = [result for result in results if result.status == "fail"]
    skipped = sum(result.status == "skipped" for result in results)
    hint = f"The whole log is {target / 'dbt.log'}."
    if not broken and not failed:
        words = _squeeze(said.rpartition("Errors parsed from dbt logs:")[2] or said)
        if _UNREACHABLE.search(words):
            return LoaderError("dbt", words[:400], hint)
        return ConfigError("dbt", words[:400], hint)
    lines = [f"{_name(graph, result)}: {_squeeze(result.message)[:200]}" for result in [*broken, *failed][:_SHOWN]]
    more = len(broken) + len(failed) - _SHOWN
    what = "; ".join(lines) + (f"; and {more} more" if more > 0 else "")
    counted = f"{len(broken)} failed to build, {len(failed)} tests failed, {skipped} skipped. "
    if any(_UNREACHABLE.search(result.message) for result in broken):
        return LoaderError("dbt", what, counted + hint)
    unsynced = sorted({".".join(match) for result in broken for match in _NEVER_SYNCED.findall(result.message)})
    if unsynced:
        counted = f"{counted}Sync {', '.join(unsynced[:_SHOWN])} first. "
    is_contract = not broken or any("enforced contract" in result.message for result in broken)
    return (ContractError if is_contract else ConfigError)("dbt", what, counted + hint)


def _bad_results(target: Path) -> Sequence[Result]:
    path = target / "run_results.json"
    if not path.is_file():
        return ()
    found: list[dict[str, Any]] = json.loads(path.read_bytes())["results"]
    return [
        Result(one["unique_id"], one["status"], str(one.get("message") or ""))
        for one in found
        if one["status"] in ("error", "runtime error", "fail", "skipped")
    ]


def _name(graph: Graph, result: Result) -> str:
    if result.unique_id in graph.models:
        return graph.models[result.unique_id].relation
    test = graph.tests.get(result.unique_id)
    if test is None:
        return result.unique_id
    return f"test {test.name} of {graph.models[test.model].relation}"


def _squeeze(text: str) -> str:
    return " ".join(text.split())
