"""What the UI asks its server for."""

from collections.abc import Iterable, Sequence
from typing import Any

import httpx

_LAUNCH = """
mutation launch($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on InvalidSubsetError { message }
  }
}
"""
_BACKFILL = """
mutation backfill($parameters: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $parameters) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
_CHECKS = """
query checks($asset: AssetKeyInput!) {
  assetNodeOrError(assetKey: $asset) {
    ... on AssetNode {
      assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } }
    }
  }
}
"""
_TICKS = """
query ticks($sensor: SensorSelector!) {
  sensorOrError(sensorSelector: $sensor) {
    __typename
    ... on Sensor { sensorState { ticks(limit: 10) { timestamp endTimestamp status error { message } } } }
  }
}
"""
_SENSOR = """
query sensor($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { ... on Sensor { id } } }
"""
_STOP = """
mutation stop($id: String!) { stopSensor(id: $id) { __typename } }
"""
_START = """
mutation start($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) { __typename } }
"""
_RELOAD = """
mutation reload($name: String!) {
  reloadRepositoryLocation(repositoryLocationName: $name) {
    __typename
    ... on WorkspaceLocationEntry {
      locationOrLoadError { __typename ... on PythonError { errorChain { error { message } } } }
    }
  }
}
"""
_LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus locationOrLoadError {
  __typename ... on PythonError { message } } } } } }
"""
REPOSITORY = "__repository__"


def ask(url: str, query: str, **variables: Any) -> Any:
    answer = httpx.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=300)
    told = answer.json()
    assert "errors" not in told, told["errors"]
    return told["data"]


def answers(url: str) -> bool:
    """Whether the server has loaded every code location."""
    try:
        entries = ask(url, _LOCATIONS)["workspaceOrError"]["locationEntries"]
    except (httpx.HTTPError, ValueError):
        return False
    assert all(entry["locationOrLoadError"]["__typename"] == "RepositoryLocation" for entry in entries), entries
    return len(entries) == 2 and all(entry["loadStatus"] == "LOADED" for entry in entries)


def reloaded(url: str, location: str) -> str:
    """What the button "Reload" says: why the location does not load, or nothing."""
    told = ask(url, _RELOAD, name=location)["reloadRepositoryLocation"]
    assert told["__typename"] == "WorkspaceLocationEntry", told
    return "".join(link["error"]["message"] for link in told["locationOrLoadError"].get("errorChain", ()))


def launch(url: str, location: str, assets: Iterable[str], tags: Sequence[dict[str, str]]) -> str:
    parameters = {
        "selector": {
            "repositoryLocationName": location, "repositoryName": REPOSITORY, "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": asset.split("/")} for asset in assets],
        },
        "executionMetadata": {"tags": tags},
        "runConfigData": {},
    }  # fmt: skip
    told = ask(url, _LAUNCH, parameters=parameters)["launchRun"]
    assert told["__typename"] == "LaunchRunSuccess", told
    return told["run"]["runId"]


def launch_backfill(url: str, asset: str, partitions: Sequence[str]) -> str:
    parameters = {"assetSelection": [{"path": asset.split("/")}], "partitionNames": partitions}
    told = ask(url, _BACKFILL, parameters=parameters)["launchPartitionBackfill"]
    assert told["__typename"] == "LaunchBackfillSuccess", told
    return told["backfillId"]


def red_checks(url: str, asset: str) -> set[str]:
    found = ask(url, _CHECKS, asset={"path": asset.split("/")})["assetNodeOrError"]["assetChecksOrError"]["checks"]
    latest = {check["name"]: check["executionForLatestMaterialization"] for check in found}
    return {name for name, execution in latest.items() if execution and execution["status"] == "FAILED"}


def ticks_since(url: str, sensor: str, moment: float) -> int:
    """Ticks of a sensor of the models that began after the moment and have ended."""
    found = ask(url, _TICKS, sensor=_selector("transform", sensor))["sensorOrError"]
    assert found["__typename"] == "Sensor", found
    ticks = found["sensorState"]["ticks"]
    return sum(tick["timestamp"] > moment and tick["endTimestamp"] is not None for tick in ticks)


def stop_sensor(url: str, sensor: str) -> None:
    """The switch of a sensor of the streams, off."""
    id_ = ask(url, _SENSOR, sensor=_selector("ingest", sensor))["sensorOrError"]["id"]
    assert ask(url, _STOP, id=id_)["stopSensor"]["__typename"] == "StopSensorMutationResult"


def start_sensor(url: str, sensor: str) -> None:
    assert ask(url, _START, sensor=_selector("ingest", sensor))["startSensor"]["__typename"] == "Sensor"


def _selector(location: str, sensor: str) -> dict[str, str]:
    return {"repositoryLocationName": location, "repositoryName": REPOSITORY, "sensorName": sensor}
