"""Models that must not be built, because a blocking check upstream has failed: near or far, whoever knows of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from connectors.errors import ContractError
from platform_assets.dbt.graph import Graph, Key


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """asset: whose check it is. at: since when it stands, aware UTC. note: half a sentence, or nothing."""

    asset: Key
    name: str
    at: datetime
    note: str = ""

    def __str__(self) -> str:
        note = f", {self.note}" if self.note else ""
        return f"{self.name} of {'.'.join(self.asset)} ({self.at:%Y-%m-%d %H:%M} UTC{note})"


Blocked = Mapping[str, Sequence[FailedCheck]]
"""Models by unique id, with the failed checks upstream."""


def standing_on(graph: Graph, selected: Iterable[str], failed: Callable[[str], Sequence[FailedCheck]]) -> Blocked:
    """Of the selected models those that stand on a failed check.

    Checks of models that are selected themselves do not count: the run evaluates them again, and dbt skips what is
    built on one that fails.

    failed: the failed blocking checks of one model or source, by unique id; asked once each.
    """
    wanted = set(selected)
    upstream = {id_: graph.ancestors(id_) - wanted for id_ in wanted}
    found = {ancestor: failed(ancestor) for ancestor in sorted(frozenset[str]().union(*upstream.values()))}
    blocked = {id_: [check for ancestor in sorted(far) for check in found[ancestor]] for id_, far in upstream.items()}
    return {id_: checks for id_, checks in blocked.items() if checks}


def blocked_error(graph: Graph, blocked: Blocked, over: str) -> ContractError:
    """Names the models, the checks, and how to go on. over: how to build nevertheless, after a `to build over it, `."""
    models = sorted(graph.models[id_].relation for id_ in blocked)
    checks = sorted({check for found in blocked.values() for check in found}, key=lambda one: (one.asset, one.name))
    assets = sorted({".".join(check.asset) for check in checks})
    return ContractError(
        _first(models, 3),
        f"not built: upstream failed {len(checks)} blocking check{'s' if len(checks) > 1 else ''}: "
        f"{_first([str(check) for check in checks], 3)}",
        f"Mend the data or the rule and materialize {_first(assets, 3)} again; to build over it, {over}.",
    )


def _first(words: Sequence[str], count: int) -> str:
    more = f" and {len(words) - count} more" if len(words) > count else ""
    return ", ".join(words[:count]) + more
