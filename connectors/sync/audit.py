"""Audit before publish: rules on the staged rows, limits of quarantine, reconciliation with the source."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from connectors.contract import Attestation
from connectors.errors import ConfigError, ContractError
from connectors.specs import Severity, StreamSpec, did_you_mean
from connectors.sync.checks import JUDGED_AFTER_THE_SYNC, audit_checks
from connectors.sync.checks.contract import Judge, Outcome, Staged, Whole, settled
from connectors.sync.checks.options import options_of
from connectors.sync.columns import DELETED
from connectors.sync.result import RowCounts, Verdict
from connectors.sync.schema import StreamSchema

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
    promise: what of the contract it holds, where the stream's drift policy decides; None for keys and cursors.
    """

    fields: tuple[str, ...]
    reason: str
    violation: Composable
    when_absent: Composable
    promise: Literal["nullability", "enum"] | None = None


def contract_rules(stream: StreamSpec, schema: StreamSchema) -> tuple[RowRule, ...]:
    """What the contract says of single rows: keys and cursor present, NOT NULL, accepted values."""
    rules: list[RowRule] = []
    kept = SQL("not {}").format(Identifier(DELETED))

    def required(
        source_name: str, reason: str, scope: Composable = kept, promise: Literal["nullability"] | None = None
    ) -> None:
        column = schema.name_of(source_name)
        is_null = SQL("{} is null and {}").format(Identifier(column), scope)
        rules.append(RowRule((column,), reason, is_null, scope, promise))

    for key in stream.primary_key:
        required(key, f"key {key} is NULL", SQL("true"))
    if stream.cursor is not None and stream.cursor.field not in stream.primary_key:
        required(stream.cursor.field, f"cursor {stream.cursor.field} is NULL")
    for name, spec in stream.columns.items():
        if not spec.nullable and name not in stream.primary_key:
            required(name, f"column {name} is NULL, the contract says nullable: false", promise="nullability")
        if spec.accepted_values:
            column = schema.name_of(name)
            rules.append(
                RowRule(
                    (column,),
                    f"column {name} has a value that the contract does not accept",
                    SQL("{}::text <> all ({}) and {}").format(Identifier(column), list(spec.accepted_values), kept),
                    SQL("false"),
                    "enum",
                )
            )
    return tuple(rules)


@dataclass(frozen=True, slots=True)
class _Seat:
    """A check of the stream and what judges it in this sync."""

    name: str
    severity: Severity
    blocking: bool
    judge: Judge


def _seats(label: str, stream: StreamSpec) -> list[_Seat]:
    """The declared checks that the engine judges, then those that apply by themselves.

    Raises:
        ConfigError: a type that nobody knows, or wrong options; a check that is not understood is never passed over.
    """
    seats: list[_Seat] = []
    types = audit_checks()
    for index, spec in enumerate(stream.checks):
        where = f"{label}: checks[{index}]"
        if (entry := types.get(spec.type)) is not None:
            severity, blocking = settled(spec, entry.severity, blocks=entry.blocks)
            judge = entry.judge(options_of(spec, entry.options, stream, where), stream)
            seats.append(_Seat(str(spec.options.get("name") or spec.type), severity or "error", blocking, judge))
        elif spec.type not in JUDGED_AFTER_THE_SYNC:
            nearest = did_you_mean(spec.type, sorted({*types, *JUDGED_AFTER_THE_SYNC}))
            raise ConfigError(f"{where}.type", f"unknown check {spec.type!r}", nearest)
    declared = {spec.type for spec in stream.checks}
    for entry in types.values():
        if entry.name not in declared and entry.applies_to(stream):
            judge = entry.judge(entry.options(), stream)
            seats.append(_Seat(entry.name, entry.severity, blocking=False, judge=judge))
    return seats


class Audit:
    """Collects the verdicts of one sync. Everything here runs inside publications, before anything is visible."""

    def __init__(self, label: str, stream: StreamSpec) -> None:
        self._label = label
        self._stream = stream
        self._seats = _seats(label, stream)
        self._attested = Attestation()
        self.extracted = 0
        self.quarantined = 0
        self.verdicts: list[Verdict] = []

    @property
    def has_row_checks(self) -> bool:
        return any(seat.judge.reads_rows for seat in self._seats)

    @property
    def waits_for_the_end(self) -> bool:
        """A blocking check judges the sync as a whole, so nothing of it may be visible before its end."""
        return any(seat.blocking and seat.judge.is_whole for seat in self._seats)

    def attest(self, attestation: Attestation) -> None:
        self._attested = self._attested.then(attestation)

    @property
    def nothing_new(self) -> bool:
        """The source has said that there is nothing newer than the position."""
        return self._attested.nothing_new

    @property
    def quarantine_left(self) -> int:
        """How many more records may be refused before the sync must fail."""
        return max(self._stream.max_quarantined.rows - self.quarantined, 0)

    def refuse_flood(self, quarantined: int) -> None:
        """Raises ContractError as soon as more records than `max_quarantined.rows` are bad."""
        limit = self._stream.max_quarantined.rows
        if self.quarantined + quarantined > limit:
            self._fail_quarantine(self.quarantined + quarantined, f"max_quarantined.rows is {limit}")

    def skip_deletes(self, *, for_good: bool = False) -> None:
        """Say that rows which the source lacks stay: the key of a record in quarantine may be theirs.

        for_good: the next sync does not look for them either.
        """
        self.verdicts = [verdict for verdict in self.verdicts if verdict.name != "deletes"]
        explanation = f"deletes were not looked for, because {self.quarantined:,} records are in quarantine"
        if for_good:
            explanation += f"; mend those, then read all rows again: headwater state reset {self._label} --yes"
        self.verdicts.append(
            Verdict(
                "deletes", passed=False, severity="warn", blocking=False,
                explanation=explanation, measured={"quarantined": self.quarantined},
            )
        )  # fmt: skip

    def count(self, extracted: int, quarantined: int) -> None:
        """Add a window's figures."""
        self.refuse_flood(quarantined)
        self.extracted += extracted
        self.quarantined += quarantined

    def arrived(self, staged: Staged, extracted: int) -> None:
        """The good ones of so many records of a publication as they came, duplicates among them."""
        for seat in self._seats:
            if extracted:
                self._hear(seat, staged.connection, partial(seat.judge.arrived, staged))

    def judge(self, staged: Staged) -> None:
        """The rows of a publication as they will be written.

        Raises:
            AuditFailedError: a blocking check failed.
        """
        if self.extracted:
            for seat in self._seats:
                self._hear(seat, staged.connection, partial(seat.judge.staged, staged))
        self._raise_blocking()

    def conclude(self, staged: Staged, table: Identifier, sync_id: str, rows: RowCounts) -> None:
        """The sync as a whole, in the transaction of its last publication, when all that is left is the commit.

        table: what readers will see. rows: of the whole sync.

        Raises:
            AuditFailedError: a blocking check failed, or too much is in quarantine.
        """
        share = self.quarantined / self.extracted if self.extracted else 0.0
        limit = self._stream.max_quarantined.share
        if self.extracted >= _SHARE_NEEDS_ROWS and share > limit:
            self._fail_quarantine(
                self.quarantined, f"{share:.1%} of {self.extracted}, max_quarantined.share is {limit:.1%}"
            )
        schema = staged.schema
        known = {column.source_name for column in schema.table_columns if column.variant_of is None}
        whole = Whole(
            staged.connection, staged.request, sync_id, staged.tables, schema, table, rows, self._attested,
            frozenset(known - schema.seen if self.extracted and staged.request.trigger != "replay" else ()),
        )  # fmt: skip
        for seat in self._seats:
            self._hear(seat, staged.connection, partial(seat.judge.concluded, whole))
        self._raise_blocking()
        if self.nothing_new and not self.extracted and staged.request.is_live:
            staged.connection.execute("update ops.syncs set nothing_new = true where sync_id = %s", [sync_id])

    def _hear(self, seat: _Seat, connection: psycopg.Connection[Any], ask: Callable[[], Outcome | None]) -> None:
        """Take down what the check says; a question that PostgreSQL cannot answer is red and stops nothing else."""
        if any(verdict.name == seat.name and not verdict.passed for verdict in self.verdicts):
            return
        try:
            with connection.transaction():
                outcome = ask()
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            outcome = Outcome(False, f"cannot be judged: {str(error).strip().splitlines()[0]}")
        if outcome is None:
            return
        self.verdicts = [verdict for verdict in self.verdicts if verdict.name != seat.name]
        blocking = seat.blocking and outcome.may_block
        self.verdicts.append(
            Verdict(seat.name, outcome.passed, seat.severity, blocking, outcome.explanation, outcome.measured)
        )

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
            "Nothing of this window was published. "
            f"`headwater quarantine list {self._label}` shows some of them; mend the source or the contract.",
            [*self.verdicts, verdict],
        )
