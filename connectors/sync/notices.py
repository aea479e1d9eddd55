"""What a sync did to the data that nobody asked for: said as warnings, never silent."""

from dataclasses import asdict

from connectors.contract import Usage
from connectors.sync.result import Verdict
from connectors.sync.values import Cleaning


def notices(cleaning: Cleaning, overflowing: int) -> list[Verdict]:
    """`cleaned_text`: values that PostgreSQL cannot store as they came. `overflow`: columns without room."""
    found: list[Verdict] = []
    counts = {name: number for name, number in asdict(cleaning).items() if number}
    if counts:
        words = {
            "nul": "texts lost NUL characters",
            "surrogates": "texts had lone surrogates, now U+FFFD",
            "fractions": "times were cut to microseconds",
            "names": "field names were cleaned",
        }
        said = ", ".join(f"{number:,} {words[name]}" for name, number in counts.items())
        found.append(_warning("cleaned_text", f"stored otherwise than they came: {said}", counts))
    if overflowing:
        said = f"{overflowing:,} new columns have no room in a row of PostgreSQL; they are keys of _overflow"
        found.append(_warning("overflow", said, {"columns": overflowing}))
    return found


def of_source(usage: Usage) -> list[Verdict]:
    """What the connector warns of."""
    return [_warning(name, text, {}) for name, text in usage.warnings.items()]


def _warning(name: str, explanation: str, measured: dict[str, int]) -> Verdict:
    return Verdict(name, passed=False, severity="warn", blocking=False, explanation=explanation, measured=measured)
