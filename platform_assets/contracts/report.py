"""A plan as text, as JSON for programs, and as Markdown for a pull request; JSON names who stands on every change."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from platform_assets.contracts.impact import Use
from platform_assets.contracts.plan import Plan, Planned


def as_text(plan: Plan) -> str:
    lines: list[str] = []
    for change in _ordered(plan):
        lines.append(f"{'BREAKS ' if change.is_breaking else '       '}{change.where}: {change.says}")
        for word, names in _named(change) if change.is_breaking else ():
            lines.append(f"         {word:<10} {', '.join(names)}")
    return "\n".join([*lines, *(f"note: {note}" for note in plan.notes), _summary(plan)])


def as_json(plan: Plan) -> str:
    document = {
        "is_breaking": plan.is_breaking,
        "changes": [asdict(change) for change in _ordered(plan)],
        "notes": list(plan.notes),
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def as_markdown(plan: Plan) -> str:
    lines = [f"### headwater plan: {_summary(plan)}", ""]
    if plan.changes:
        lines += ["| | where | change | breaks | owners |", "|---|---|---|---|---|"]
    for change in _ordered(plan):
        broken = _named(change)[:-1] if change.is_breaking else ()
        named = "<br>".join(f"{word}: {', '.join(map(_cell, names))}" for word, names in broken)
        owners = ", ".join(map(_cell, change.impact.owners))
        mark = "**breaking**" if change.is_breaking else ""
        lines.append(f"| {mark} | {_cell(change.where)} | {_cell(change.says)} | {named} | {owners} |")
    lines += ["", *(f"- {_cell(note)}" for note in plan.notes)] if plan.notes else []
    return "\n".join(lines)


def _ordered(plan: Plan) -> list[Planned]:
    return sorted(plan.changes, key=lambda change: not change.is_breaking)


def _named(change: Planned) -> list[tuple[str, Iterable[str]]]:
    """Owners last."""
    impact = change.impact
    every = (
        ("models", [use.model for use in impact.uses]),
        ("columns", list(_columns(impact.uses))),
        ("checks", list(impact.checks)),
        ("exposures", list(impact.exposures)),
    )
    return [*((word, names) for word, names in every if names), ("owners", impact.owners)]


def _columns(uses: Iterable[Use]) -> Iterator[str]:
    for use in uses:
        yield from (f"{use.model}.{column}" for column in use.columns)
        if use.rows:
            yield f"{use.model} (which rows)"


def _summary(plan: Plan) -> str:
    breaking = sum(change.is_breaking for change in plan.changes)
    if not plan.changes:
        return "nothing changes"
    return f"{breaking} breaking, {len(plan.changes) - breaking} other changes"


def _cell(text: str) -> str:
    """Text that neither ends a cell nor starts markup."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*")
