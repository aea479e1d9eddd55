"""Staged rows that break what the contract promised: what the drift policy makes of them, and what is noted."""

from typing import Any, Literal

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from connectors.column_spec import ColumnSpec
from connectors.sync.audit import RowRule
from connectors.sync.differences import words
from connectors.sync.schema import BLOCKED, Drift, FrozenDriftError, StreamSchema
from connectors.sync.tables import Tables

_SHOWN = 10
"""Values outside `accepted_values` that are named; of a column with personal data none is."""
_ACTIONS = {"evolve": "loaded", "quarantine": "quarantined"}


def judge_promise(
    connection: psycopg.Connection[Any], tables: Tables, rule: RowRule, violation: Composable, schema: StreamSchema
) -> Literal["evolve", "quarantine"]:
    """The policy for rows that break the rule; the difference is noted in `schema.broken`.

    Raises:
        FrozenDriftError: the policy is `freeze`.
    """
    assert rule.promise is not None
    policy = schema.policy(rule.promise, rule.fields[0])
    column = next((c.source_name for c in schema.columns if c.name == rule.fields[0]), rule.fields[0])
    spec = schema.spec.columns[column]
    before, after = "never NULL", "NULL"
    if rule.promise == "enum":
        before, after = words(spec.accepted_values), _others(connection, tables, rule, violation, spec)
    if policy == "freeze":
        raise FrozenDriftError(
            f"{schema.label}: column {column}",
            f"{rule.reason}, and the stream says drift.{rule.promise}: freeze",
            f"Nothing of this window was published. Mend the source, or set drift.{rule.promise} to evolve.",
            [Drift(rule.promise, rule.fields[0], before, after, BLOCKED)],
        )
    schema.break_promise(Drift(rule.promise, rule.fields[0], before, after, _ACTIONS[policy]))
    return "evolve" if policy == "evolve" else "quarantine"


def _others(
    connection: psycopg.Connection[Any], tables: Tables, rule: RowRule, violation: Composable, spec: ColumnSpec
) -> str:
    if spec.pii != "none":
        return "other values"
    rows = connection.execute(
        SQL("select distinct left({}::text, 60) from {} s where {} order by 1 limit {}").format(
            Identifier(rule.fields[0]), tables.staged, violation, _SHOWN
        )
    ).fetchall()
    return ", ".join(value for (value,) in rows)
