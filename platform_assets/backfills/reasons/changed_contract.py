"""The stream's columns or its mapping changed in the source file: quarantine is replayed, windows are read again."""

import hashlib
import json
from datetime import UTC, datetime

from connectors.specs import Policy, StreamSpec
from platform_assets.backfills.reasons.contract import Finding, Found, Look, Reason

_NOT_MAPPING = frozenset(Policy.model_fields) - {"write", "drift"} | {
    "name", "description", "checks", "partitions", "backfill", "max_record_bytes", "allow_empty",
}  # fmt: skip
_WORDS = frozenset({"description", "unit", "pii"})


def fingerprint(stream: StreamSpec) -> str:
    """Of what decides how a record becomes a row; words and policy are not part of it."""
    said = stream.model_dump(mode="json", exclude=set(_NOT_MAPPING))
    for column in said.get("columns", {}).values():
        for word in _WORDS:
            column.pop(word, None)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def find(look: Look) -> Found:
    """The first look only remembers. Afterwards a change is due for every window that was last read before it."""
    now = fingerprint(look.stream)
    known = look.mark.get("fingerprint")
    changed_at = look.mark.get("changed_at") if known == now else datetime.now(UTC).isoformat() if known else None
    mark = {"fingerprint": now, "changed_at": changed_at}
    if changed_at is None:
        return Found(mark=mark)
    since = datetime.fromisoformat(str(changed_at))
    # with its time: a contract that comes back finds windows that were read under another one in between
    cause = f"contract {now} since {changed_at}"
    partitions = look.read_before(since)
    row = look.connection.execute(
        "select count(*) from ops.quarantine where source = %s and stream = %s and status = 'held' and created_at < %s",
        [look.source.source, look.stream.name, since],
    ).fetchone()
    held = row[0] if row else 0
    found: list[Finding] = []
    if held:
        found.append(Finding((), f"{held} quarantined records under another contract", cause, held=held))
    if partitions:
        found.append(Finding(tuple(partitions), f"the contract is now {now}", cause))
    return Found(tuple(found), mark)


REASON = Reason("contract", "The columns or the mapping changed in the source file.", find, lambda stream: True)
