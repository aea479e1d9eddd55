"""Does the observed schema agree with what was declared and accepted?

The engine writes a version to `ops.schema_versions` for every change that it sees, and decides on it as the stream's
`drift` policy says; what the policy leaves open is `pending`. The check is red from that sync on until somebody
decides: a later sync that looks fine again does not turn it green.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from connectors.specs import Severity, Spec
from connectors.sync import Verdict
from platform_assets.checks.contract import CheckType, Observation, SchemaVersion, every_stream

UNDECIDED = ("pending", "blocked")
SHOWN_CHANGES = 5


class DriftOptions(Spec):
    """None: what is allowed is the stream's `drift` policy."""


def evaluate(observation: Observation, options: DriftOptions) -> Verdict:
    """Fails while a version waits: with severity warn where the policy only wants a warning, else error."""
    versions, result = observation.history.schemas, observation.result
    waiting = undecided(versions)
    changes = [change for version in waiting for change in version.diff]
    measured: dict[str, Any] = {
        "columns": len(result.columns),
        "schema_version": versions[-1].version if versions else 0,
        "undecided_versions": len(waiting),
        "undecided_changes": len(changes),
    }
    if not waiting:
        return _verdict(True, "error", f"{len(result.columns)} columns, {_latest(versions)}", measured)
    return _verdict(
        False,
        "warn" if changes and all(change.get("action") == "warn" for change in changes) else "error",
        f"schema version {waiting[-1].version} waits for a decision: {_listed(changes)}. Have the source changed back "
        "or change what builds on it, then accept the version: docs/checks.md says how.",
        {**measured, "changes": [dict(change) for change in changes]},
    )


def undecided(versions: Sequence[SchemaVersion]) -> list[SchemaVersion]:
    """Versions that wait, newer than the last one that a person accepted: accepting one settles all before it."""
    accepted = max((version.version for version in versions if version.decision == "accepted"), default=0)
    return [version for version in versions if version.decision in UNDECIDED and version.version > accepted]


def _verdict(passed: bool, severity: Severity, explanation: str, measured: Mapping[str, Any]) -> Verdict:
    return Verdict("schema_drift", passed, severity, blocking=False, explanation=explanation, measured=measured)


def _latest(versions: Sequence[SchemaVersion]) -> str:
    return f"schema version {versions[-1].version} ({versions[-1].decision})" if versions else "no version yet"


def _listed(changes: Sequence[Mapping[str, Any]]) -> str:
    more = f" and {len(changes) - SHOWN_CHANGES} more" if len(changes) > SHOWN_CHANGES else ""
    return "; ".join(_words(change) for change in changes[:SHOWN_CHANGES]) + more if changes else "changed"


def _words(change: Mapping[str, Any]) -> str:
    """`amount retyped from bigint to text (quarantined)`."""
    words = [str(change.get("column") or ""), str(change.get("change") or "changed")]
    words += [f"{word} {change[key]}" for word, key in (("from", "before"), ("to", "after")) if change.get(key)]
    words += [f"({change['action']})"] if change.get("action") else []
    return " ".join(word for word in words if word)


CHECK = CheckType(
    name="schema_drift",
    description="Observed columns agree with the declared and accepted ones; red until a change is decided on.",
    options=DriftOptions,
    applies_to=every_stream,
    evaluate=evaluate,
)
