"""Which files were read already, in a state that stays under 48 KB however many there are.

The newest files are kept by name with their mark, so a change is seen. Older ones are folded into segments in order of
modification. A segment knows its last file, how many it holds and the XOR of their 64-bit digests; the newer segments
also keep every file's digest, cut to 40 bits, so that a file which comes late with an old time is told apart exactly.
A segment with nothing but the XOR is compared with the listing as a whole:

- as many files and the same XOR: nothing happened there;
- fewer files: some were deleted or rewritten (a rewritten file has moved to the newest, where it is found);
- one or two more: the XOR tells which;
- anything else cannot be told, and is said instead of guessed.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple, Self

VERSION = 1
_SHORT_BYTES = 5
_SHRINK_EVERY = 64


class FileKey(NamedTuple):
    """The order in which files are read: by modification (ns since 1970; 0 where a store does not say), then path."""

    modified_ns: int
    path: str


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a listing.

    path: below the connector's url. mark: short, and another one when the content changes.
    """

    path: str
    size_bytes: int
    modified_ns: int
    mark: str

    @property
    def key(self) -> FileKey:
        return FileKey(self.modified_ns, self.path)

    def looks_like(self, listed: "FileInfo") -> bool:
        """The same content as far as another request tells; some stores list milliseconds and answer in seconds."""
        second = 1_000_000_000
        moments = (self.modified_ns, listed.modified_ns)
        is_coarse = any(moment % second == 0 for moment in moments)
        same_time = moments[0] == moments[1] or (is_coarse and moments[0] // second == moments[1] // second)
        # a listing over HTTP tells neither size nor time
        is_known = listed.size_bytes or listed.modified_ns
        return not is_known or (self.size_bytes == listed.size_bytes and same_time)

    @property
    def digest(self) -> int:
        text = f"{self.path}\n{self.mark}"
        return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())


@dataclass(frozen=True, slots=True)
class Limits:
    """names, name_bytes: of the files kept by name. segment: files of one. folded_bytes: of all segments as JSON.

    Together 48 KB at most.
    """

    names: int = 200
    name_bytes: int = 10_000
    segment: int = 256
    folded_bytes: int = 28_000


@dataclass(frozen=True, slots=True)
class Segment:
    """Files folded together: up to and including `last`, and after the segment before.

    shorts: the digests cut to 40 bits; None when they were given up for space.
    """

    last: FileKey
    files: int = 0
    xor: int = 0
    shorts: frozenset[int] | None = frozenset()

    def with_file(self, file: FileInfo) -> Self:
        shorts = None if self.shorts is None else self.shorts | {_short(file.digest)}
        return replace(
            self, last=max(self.last, file.key), files=self.files + 1, xor=self.xor ^ file.digest, shorts=shorts
        )

    def joined(self, later: "Segment") -> "Segment":
        return Segment(later.last, self.files + later.files, self.xor ^ later.xor, None)

    def late(self, files: Sequence[FileInfo]) -> list[FileInfo] | None:
        """Of the files listed in this segment's range, those that are new; None when that cannot be told."""
        if self.shorts is not None:
            return [file for file in files if _short(file.digest) not in self.shorts]
        more = len(files) - self.files
        difference = self.xor
        for file in files:
            difference ^= file.digest
        if more < 0 or (more == 0 and difference == 0):
            return []
        if more == 1:
            return [file for file in files if file.digest == difference] or None
        if more == 2:
            by_digest = {file.digest: file for file in files}
            for file in files:
                other = by_digest.get(difference ^ file.digest)
                if other is not None and other is not file:
                    return [file, other]
        return None


@dataclass(frozen=True, slots=True)
class Pending:
    """What a listing has beyond what was read.

    changed: read before with another mark. untold: of segments where nobody can tell which files are new.
    """

    new: tuple[FileInfo, ...]
    changed: tuple[FileInfo, ...] = ()
    untold: tuple[FileInfo, ...] = ()


@dataclass(slots=True)
class Seen:
    """The files read so far."""

    names: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    """path -> (modified_ns, mark)."""
    segments: list[Segment] = field(default_factory=list[Segment])
    limits: Limits = Limits()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], limits: Limits = Limits()) -> Self:
        """From StreamState.connector; a state of another version counts as nothing seen."""
        if raw.get("version") != VERSION:
            return cls(limits=limits)
        names = {path: (int(modified), str(mark)) for path, (modified, mark) in raw.get("files", {}).items()}
        segments = [
            Segment(FileKey(int(modified), path), int(files), int(xor, 16), _unpacked(shorts))
            for modified, path, files, xor, shorts in raw.get("folded", ())
        ]
        return cls(names, segments, limits)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "files": {path: [modified, mark] for path, (modified, mark) in self.names.items()},
            "folded": self._folded(),
        }

    def _folded(self) -> list[list[Any]]:
        return [
            [item.last.modified_ns, item.last.path, item.files, f"{item.xor:x}", _packed(item.shorts)]
            for item in self.segments
        ]

    def pending(self, listing: Iterable[FileInfo]) -> Pending:
        """The files of a listing that are new, changed or beyond telling.

        Segments with fewer files than before are settled on what is listed now.
        """
        new: list[FileInfo] = []
        changed: list[FileInfo] = []
        untold: list[FileInfo] = []
        folded: list[list[FileInfo]] = [[] for _ in self.segments]
        for file in listing:
            known = self.names.get(file.path)
            if known is not None:
                if known[1] != file.mark:
                    changed.append(file)
            elif (index := self._segment_of(file.key)) is None:
                new.append(file)
            else:
                folded[index].append(file)
        for index, files in enumerate(folded):
            segment = self.segments[index]
            late = segment.late(files)
            if late is None:
                untold += files
                continue
            new += late
            if segment.shorts is None and 0 < len(files) < segment.files:
                self.segments[index] = replace(segment, files=len(files), xor=_xor(files))
        return Pending(_ordered(new), _ordered(changed), _ordered(untold))

    def add(self, file: FileInfo) -> None:
        """Remembers a file that was read; folds the oldest when there are too many."""
        index = self._segment_of(file.key)
        if index is not None and file.path not in self.names:
            self.segments[index] = self.segments[index].with_file(file)
            if self.segments[index].files % _SHRINK_EVERY == 0:
                self._shrink()
            return
        self.names[file.path] = (file.modified_ns, file.mark)
        if len(self.names) > self.limits.names or (
            len(self.names) > 1 and sum(map(len, self.names)) > self.limits.name_bytes
        ):
            self._fold()

    def _segment_of(self, key: FileKey) -> int | None:
        """The first segment that reaches so far; None beyond the last."""
        low, high = 0, len(self.segments)
        while low < high:
            middle = (low + high) // 2
            if self.segments[middle].last < key:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self.segments) else None

    def _fold(self) -> None:
        """Moves the older half of the names into segments; gives up digests, then segments, until all fits."""
        files = _ordered(FileInfo(path, 0, modified, mark) for path, (modified, mark) in self.names.items())
        for file in files[: max(1, len(files) // 2)]:
            del self.names[file.path]
            index = self._segment_of(file.key)
            if index is not None:
                self.segments[index] = self.segments[index].with_file(file)
            elif self.segments and self.segments[-1].files < self.limits.segment:
                self.segments[-1] = self.segments[-1].with_file(file)
            else:
                self.segments.append(Segment(file.key).with_file(file))
        self._shrink()

    def _shrink(self) -> None:
        """Makes the segments fit."""
        while len(json.dumps(self._folded())) > self.limits.folded_bytes and self._shrink_once():
            pass

    def _shrink_once(self) -> bool:
        """One step smaller, losing the least: the oldest digests first, then the smallest pair of neighbours."""
        for index, segment in enumerate(self.segments[:-1]):
            if segment.shorts is not None:
                self.segments[index] = replace(segment, shorts=None)
                return True
        if len(self.segments) < 2:
            return False
        pairs = range(len(self.segments) - 1)
        at = min(pairs, key=lambda index: self.segments[index].files + self.segments[index + 1].files)
        self.segments[at : at + 2] = [self.segments[at].joined(self.segments[at + 1])]
        return True


def _ordered(files: Iterable[FileInfo]) -> tuple[FileInfo, ...]:
    return tuple(sorted(files, key=lambda file: file.key))


def _xor(files: Iterable[FileInfo]) -> int:
    found = 0
    for file in files:
        found ^= file.digest
    return found


def _short(digest: int) -> int:
    return digest >> (64 - 8 * _SHORT_BYTES)


@lru_cache(maxsize=128)
def _packed(shorts: frozenset[int] | None) -> str | None:
    if shorts is None:
        return None
    return base64.b64encode(b"".join(short.to_bytes(_SHORT_BYTES) for short in sorted(shorts))).decode()


def _unpacked(text: str | None) -> frozenset[int] | None:
    if text is None:
        return None
    raw = base64.b64decode(text)
    return frozenset(int.from_bytes(raw[at : at + _SHORT_BYTES]) for at in range(0, len(raw), _SHORT_BYTES))
