"""One line of the doctor's report."""

from dataclasses import dataclass
from typing import Literal

from connectors.errors import HeadwaterError

UNEXPECTED_EXIT = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    detail: what was measured; for a problem the error says it.
    error: set exactly when status is `problem`; it carries place, measurement and next step.
    """

    check: str
    status: Literal["ok", "skipped", "problem"]
    detail: str = ""
    error: Exception | None = None

    @property
    def exit_code(self) -> int:
        if self.error is None:
            return 0
        return self.error.exit_code if isinstance(self.error, HeadwaterError) else UNEXPECTED_EXIT

    @property
    def lines(self) -> list[str]:
        """What to show: one line, or for a problem at most six."""
        if isinstance(self.error, HeadwaterError):
            return str(self.error).splitlines()
        if self.error is not None:
            said = (str(self.error).strip().splitlines() or ["no message"])[0]
            return [f"unexpected {type(self.error).__name__}: {said}", "Run again with --debug for the traceback."]
        return [self.detail]


def ok(check: str, detail: str) -> Finding:
    return Finding(check, "ok", detail)


def skipped(check: str, why: str) -> Finding:
    return Finding(check, "skipped", why)


def problem(check: str, error: Exception) -> Finding:
    return Finding(check, "problem", error=error)
