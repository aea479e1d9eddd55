"""Files that came since the last look: a live sync reads them, or the windows that their names tell."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from connectors.registry import kind
from connectors.specs import StreamSpec
from platform_assets.backfills.reasons.contract import Finding, Found, Look, Reason

_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_/]?(0[1-9]|1[0-2])(?:[-_/]?(0[1-9]|[12]\d|3[01]))?(?!\d)")


def find(look: Look) -> Found:
    """The first look only remembers. A file without a date in its name tells no window."""
    with kind(look.source.connector.kind).open(look.source) as connector:
        listing = connector.list_files(look.stream)  # pyright: ignore[reportAttributeAccessIssue]  applies says it is FilesConnector
    newest = max((file.modified_ns for file in listing), default=0)
    known = look.mark.get("modified_ns")
    if look.stream.partitions is None and known is not None:
        return _live(look, [file.modified_ns for file in listing], int(known))
    mark = {"modified_ns": max(newest, int(known or 0))}
    fresh = [file for file in listing if known is not None and file.modified_ns > int(known)]
    if look.stream.partitions is None or not fresh:
        return Found(mark=mark)
    zone = ZoneInfo(look.stream.partitions.timezone)
    wanted: set[str] = set()
    for file in fresh:
        if (span := days_in(file.path)) is None:
            continue
        came = datetime.fromtimestamp(file.modified_ns / 1e9, UTC)
        touched = look.touching(_midnight(span[0], zone), _midnight(span[1] + timedelta(days=1), zone))
        wanted |= {key for key in touched if look.read_at.get(look.windows[key].start, came) <= came}
    partitions = tuple(key for key in look.windows if key in wanted)
    findings = (Finding(partitions, f"{len(fresh)} new files", f"files up to {newest}"),) if partitions else ()
    return Found(findings, mark, finds_once=True)


def _live(look: Look, modified_ns: Sequence[int], known: int) -> Found:
    """Files are new until a live sync that began after they were seen has succeeded: `seen` is kept until then."""
    seen = look.mark.get("seen")
    if seen is not None and look.synced_since(datetime.fromisoformat(str(seen["at"]))):
        known, seen = int(seen["modified_ns"]), None
    fresh = [at for at in modified_ns if at > known]
    if not fresh:
        return Found(mark={"modified_ns": known})
    seen = seen or {"modified_ns": max(fresh), "at": look.now.isoformat()}
    finding = Finding((), f"{len(fresh)} new files", f"files since {known}", is_live=True)
    return Found((finding,), {"modified_ns": known, "seen": seen})


def days_in(name: str) -> tuple[date, date] | None:
    """First and last day of the date in a file's name, `2024-01-31`, `20240131` or `2024_01`; None without one."""
    dates = list(_DATE.finditer(name))
    if not dates:
        return None
    found = dates[-1]
    year, month = int(found[1]), int(found[2])
    try:
        if found[3]:
            day = date(year, month, int(found[3]))
            return day, day
    except ValueError:
        return None
    return date(year, month, 1), date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _is_of_files(stream: StreamSpec) -> bool:
    from connectors.kinds.files import FilesStreamSpec

    return isinstance(stream, FilesStreamSpec)


REASON = Reason("new_files", "Files that came since the last look.", find, _is_of_files)
