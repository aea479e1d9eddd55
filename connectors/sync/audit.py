"""Audit before publish: rules on the staged rows, limits of quarantine, reconciliation with the source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from connectors.contract import Attestation
from connectors.errors import ContractError
from connectors.specs import CheckSpec, StreamSpec
from connectors.sync.columns import DELETED
from connectors.sync.dispositions import Tables
from connectors.sync.result import SyncRequest, Verdict
from connectors.sync.schema import StreamSchema
from connectors.sync.volume import VolumeOptions, earlier_rows, judge_volume

_SHARE_NEEDS_ROWS = 20
"""Below so many records a share says nothing: one bad row of ten is no 10 %."""


class AuditFailedError(ContractError):
    """A blocking verdict failed: nothing was published. verdicts: all of the sync's, for the checks."""

    def __init__(self, where: str, what: str, hint: str, verdicts: Sequence[Verdict]) -> None:
        super().__init__(where, what, hint)
        self.verdicts = tuple(verdicts)


@dataclass(frozen=True, slots=True)
class RowRule:
    """A record that meets `violation` goes to quarantine with `reason`.

    fields: the warehouse columns it speaks of. when_absent: who breaks the rule when such a column never turned up.
    """

    fields: tuple[str, ...]
    reason: str
    violation: Composable
    when_absent: Composable


WHOLE_SYNC = ("reconcile", "volume_anomaly")
"""Checks that judge a sync as a whole."""


def is_blocking(check: CheckSpec) -> bool:
    """Declared so; or left open on a check that blocks by itself unless it only warns."""
    if check.blocking is not None:
        return check.blocking
    return check.type in ("reconcile", "row_rule") and check.severity != "warn"


def contract_rules(stream: StreamSpec, schema: StreamSchema) -> tuple[RowRule, ...]:
    """What the contract says of single rows: keys and cursor present, NOT NULL, accepted values."""
    rules: list[RowRule] = []
    kept = SQL("not {}").format(Identifier(DELETED))

    def required(source_name: str, reason: str, scope: Composable = kept) -> None:
        column = schema.name_of(source_name)
        is_null = SQL("{} is null and {}").format(Identifier(column), scope)
        rules.append(RowRule((column,), reason, is_null, scope))

    for key in stream.primary_key:
        required(key, f"key {key} is NULL", SQL("true"))
    if stream.cursor is not None and stream.cursor.field not in stream.primary_key:
        required(stream.cursor.field, f"cursor {stream.cursor.field} is NULL")
    for name, spec in stream.columns.items():
        if not spec.nullable and name not in stream.primary_key:
            required(name, f"column {name} is NULL, the contract says nullable: false")
        if spec.accepted_values:
            column = schema.name_of(name)
            rules.append(
                RowRule(
                    (column,),
                    f"column {name} has a value that the contract does not accept",
                    SQL("{}::text <> all ({}) and {}").format(Identifier(column), list(spec.accepted_values), kept),
                    SQL("false"),
                )
            )
    return tuple(rules)


class Audit:
    """Collects the verdicts of one sync. `judge` and `conclude` run inside publications, before anything is visible."""

    def __init__(self, label: str, stream: StreamSpec) -> None:
        self._label = label
        self._stream = stream
        self._attested: int | None = None
        self.nothing_new = False
        self.extracted = 0
        self.quarantined = 0
        self.verdicts: list[Verdict] = []

    @property
    def has_row_checks(self) -> bool:
        return any(check.type == "row_rule" for check in self._stream.checks)

    def attest(self, attestation: Attestation) -> None:
        self.nothing_new = self.nothing_new or attestation.nothing_new
        if attestation.rows is not None:
            self._attested = attestation.rows

    @property
    def quarantine_left(self) -> int:
        """How many more records may be refused before the sync must fail."""
        return max(self._stream.max_quarantined.rows - self.quarantined, 0)

    def refuse_flood(self, quarantined: int) -> None:
        """Raises ContractError as soon as more records than `max_quarantined.rows` are bad."""
        limit = self._stream.max_quarantined.rows
        if self.quarantined + quarantined > limit:
            self._fail_quarantine(self.quarantined + quarantined, f"max_quarantined.rows is {limit}")

    def count(self, extracted: int, quarantined: int) -> None:
        """Add a window's figures."""
        self.refuse_flood(quarantined)
        self.extracted += extracted
        self.quarantined += quarantined

    @property
    def waits_for_the_end(self) -> bool:
        """A blocking check judges the sync as a whole, so nothing of it may be visible before its end."""
        return any(check.type in WHOLE_SYNC and is_blocking(check) for check in self._stream.checks)

    def judge(self, connection: psycopg.Connection[Any], tables: Tables, schema: StreamSchema) -> None:
        """The row rules on the staged rows, before they are written.

        Raises:
            AuditFailedError: a blocking rule failed.
        """
        for check in self._stream.checks:
            if check.type == "row_rule":
                self._add(check, self._row_rule(connection, tables, schema, check.options))
        self._raise_blocking()

    def conclude(self, connection: psycopg.Connection[Any], request: SyncRequest, sync_id: str, loaded: int) -> None:
        """The sync as a whole, in the transaction of its last publication, when all that is left is the commit.

        loaded: rows that the whole sync puts into the raw table.

        Raises:
            AuditFailedError: a blocking check failed, or too much is in quarantine.
        """
        share = self.quarantined / self.extracted if self.extracted else 0.0
        limit = self._stream.max_quarantined.share
        if self.extracted >= _SHARE_NEEDS_ROWS and share > limit:
            self._fail_quarantine(
                self.quarantined, f"{share:.1%} of {self.extracted}, max_quarantined.share is {limit:.1%}"
            )
        self._reconcile()
        for check in self._stream.checks:
            if check.type == "volume_anomaly" and is_blocking(check) and request.trigger != "replay":
                options = VolumeOptions.model_validate({k: v for k, v in check.options.items() if k != "name"})
                earlier = earlier_rows(connection, request, sync_id, options.history)
                found = judge_volume(loaded, earlier, options)
                self._add(check, (found.passed, found.explanation, found.measured))
        self._raise_blocking()

    def _raise_blocking(self) -> None:
        failed = [verdict for verdict in self.verdicts if verdict.blocking and not verdict.passed]
        if failed:
            raise AuditFailedError(
                f"{self._label}: check {failed[0].name}",
                failed[0].explanation,
                "Nothing was published; the last good data stays. Mend the source or the check, then run it again.",
                self.verdicts,
            )

    def _fail_quarantine(self, number: int, limit: str) -> None:
        verdict = Verdict(
            "quarantine", passed=False, severity="error", blocking=True,
            explanation=f"{number} records break the contract; {limit}", measured={"quarantined": number},
        )  # fmt: skip
        raise AuditFailedError(
            self._label,
            verdict.explanation,
            "Nothing of this window was published. See `headwater preview`, then mend the source or the contract.",
            [*self.verdicts, verdict],
        )

    def _add(self, check: CheckSpec, outcome: tuple[bool, str, Mapping[str, Any]]) -> None:
        passed, explanation, measured = outcome
        name = str(check.options.get("name") or check.type)
        severity = check.severity or "error"
        blocking = is_blocking(check)
        self.verdicts = [verdict for verdict in self.verdicts if verdict.name != name or not verdict.passed]
        if any(verdict.name == name for verdict in self.verdicts):
            return
        self.verdicts.append(Verdict(name, passed, severity, blocking, explanation, measured))

    def _row_rule(
        self,
        connection: psycopg.Connection[Any],
        tables: Tables,
        schema: StreamSchema,
        options: Mapping[str, Any],
    ) -> tuple[bool, str, Mapping[str, Any]]:
        """`{type: row_rule, column: amount, min: 0, max: 100, pattern: '^[A-Z]+$'}`: rows outside are counted."""
        column = schema.name_of(str(options.get("column", "")))
        if column not in tables.columns:
            return False, f"column {options.get('column')!r} is not in the data", {}
        name = Identifier(column)
        tests: list[Composable] = []
        parameters: list[Any] = []
        for key, operator in (("min", SQL("<")), ("max", SQL(">")), ("pattern", SQL("!~"))):
            if key in options:
                tests.append(SQL("{} {} %s").format(name, operator))
                parameters.append(options[key])
        if not tests:
            return False, "row_rule needs min, max or pattern", {}
        row = connection.execute(
            SQL("select count(*) from {} where {}").format(tables.staged, SQL(" or ").join(tests)), parameters
        ).fetchone()
        bad = row[0] if row else 0
        bounds = ", ".join(f"{key} {options[key]}" for key in ("min", "max", "pattern") if key in options)
        return bad == 0, f"{bad} rows with {column} outside {bounds}", {"rows": bad}

    def _reconcile(self) -> None:
        """The source's own count against what was read. Runs whenever the source says how many there are."""
        if self._attested is None:
            return
        declared = next((check for check in self._stream.checks if check.type == "reconcile"), None)
        check = declared or CheckSpec(type="reconcile", severity="warn", blocking=False)
        passed = self._attested == self.extracted
        explanation = f"the source says {self._attested} rows, {self.extracted} were read"
        self._add(check, (passed, explanation, {"source_rows": self._attested, "rows": self.extracted}))
