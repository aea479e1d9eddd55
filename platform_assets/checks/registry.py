"""The checks of a stream: those that apply to every stream, and those that its file declares."""

import pkgutil
import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import cast

from connectors.errors import ConfigError
from connectors.specs import CheckSpec, SourceSpec, Spec, StreamSpec, did_you_mean
from connectors.sync import Verdict
from connectors.sync.checks import audit_checks
from connectors.sync.checks.contract import AuditCheck, settled
from connectors.sync.checks.options import options_of
from connectors.sync.checks.reference import ReferenceOptions
from platform_assets.checks.contract import CheckType, Observation, StreamCheck

_OWNER = re.compile(r"^(team:[\w.-]+|[^@\s]+@[^@\s]+)$")


@cache
def check_types() -> Mapping[str, CheckType]:
    """Every module of `connectors.sync.checks` and `platform_assets.checks.types`, by the name of its CHECK."""
    from platform_assets.checks import types

    modules = [import_module(f"{types.__name__}.{info.name}") for info in pkgutil.iter_modules(types.__path__)]
    after = {check.name: check for check in (cast("CheckType", module.CHECK) for module in modules)}
    return {name: _audited(check) for name, check in audit_checks().items()} | after


def _audited(check: AuditCheck) -> CheckType:
    """A check that the engine judges, as this side sees it."""

    def evaluate(observation: Observation, options: Spec) -> Verdict:
        found = check.unjudged(options, observation.result.rows.extracted)
        return Verdict(check.name, found.passed, check.severity, False, found.explanation, found.measured)

    return CheckType(
        name=check.name,
        description=check.description,
        options=check.options,
        applies_to=check.applies_to,
        evaluate=evaluate,
        severity=check.severity,
        is_audit=True,
        blocks=check.blocks,
    )


def checks_of(stream: StreamSpec, place: str) -> tuple[StreamCheck, ...]:
    """The stream's checks: declared ones, then the defaults that it does not declare itself.

    Args:
        place: how errors name the file, e.g. `defs/ingest/x/defs.yaml`.

    Raises:
        ConfigError: unknown type or option, one that contradicts the stream, a name used twice, or a blocking check
            that only warns.
    """
    declared = [
        _declared(spec, stream, f"{place}: streams[{stream.name}].checks[{index}]")
        for index, spec in enumerate(stream.checks)
    ]
    names = [check.name for check in declared]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"{place}: streams[{stream.name}].checks",
            f"declared twice: {', '.join(twice)}",
            "Give each check of one type a name of its own (name: ...).",
        )
    taken = {check.type.name for check in declared}
    defaults = [
        StreamCheck(entry.name, entry, entry.severity, blocking=False, options=entry.options())
        for entry in check_types().values()
        if entry.name not in taken and entry.applies_to(stream)
    ]
    return (*declared, *defaults)


def _declared(spec: CheckSpec, stream: StreamSpec, where: str) -> StreamCheck:
    known = check_types()
    if spec.type not in known:
        raise ConfigError(f"{where}.type", f"unknown check {spec.type!r}", did_you_mean(spec.type, list(known)))
    entry = known[spec.type]
    severity, blocking = settled(spec, entry.severity, blocks=entry.blocks)
    if blocking and spec.severity == "warn":
        raise ConfigError(
            f"{where}.blocking",
            "a check of severity warn cannot block: its run would go on while automation waits for ever",
            "Set severity: error, or leave blocking out.",
        )
    name, owner = spec.options.get("name", entry.name), spec.options.get("owner")
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{where}.name", "must be letters, digits and underscores", "Rename the check.")
    if owner is not None and not _OWNER.match(str(owner)):
        raise ConfigError(f"{where}.owner", "is neither an address nor team:<name>", "Write e.g. owner: team:data.")
    options = options_of(spec, entry.options, stream, where)
    return StreamCheck(name, entry, severity, blocking, options, None if owner is None else str(owner))


def refuse_wrong_checks(source: SourceSpec, place: str) -> None:
    """Raises ConfigError: see `checks_of`; or a check speaks of a stream that this source does not have."""
    names = [stream.name for stream in source.streams]
    for stream in source.streams:
        if not stream.checks:
            continue
        for index, check in enumerate(checks_of(stream, place)[: len(stream.checks)]):
            named = check.options.parent(source.source) if isinstance(check.options, ReferenceOptions) else None
            if named is not None and named not in names:
                where = f"{place}: streams[{stream.name}].checks[{index}].to"
                raise ConfigError(where, f"no stream {named!r} in this source", did_you_mean(named, names))
