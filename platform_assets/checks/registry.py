"""The checks of a stream: those that apply to every stream, and those that its file declares."""

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import cast

from pydantic import ValidationError

from connectors.errors import ConfigError
from connectors.specs import CheckSpec, StreamSpec, did_you_mean
from platform_assets.checks.contract import CheckType, Options, StreamCheck


@cache
def check_types() -> Mapping[str, CheckType]:
    """Every module of `platform_assets.checks.types`, by the name of its CHECK."""
    from platform_assets.checks import types

    modules = [import_module(f"{types.__name__}.{info.name}") for info in pkgutil.iter_modules(types.__path__)]
    return {check.name: check for check in (cast("CheckType", module.CHECK) for module in modules)}


def checks_of(stream: StreamSpec, place: str) -> tuple[StreamCheck, ...]:
    """The stream's checks: declared ones, then the defaults that it does not declare itself.

    Args:
        place: how errors name the file, e.g. `defs/ingest/x/defs.yaml`.

    Raises:
        ConfigError: unknown type or option, a name used twice, or a blocking check that only warns.
    """
    declared = [
        _declared(spec, f"{place}: streams[{stream.name}].checks[{index}]") for index, spec in enumerate(stream.checks)
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


def _declared(spec: CheckSpec, where: str) -> StreamCheck:
    known = check_types()
    if spec.type not in known:
        raise ConfigError(f"{where}.type", f"unknown check {spec.type!r}", did_you_mean(spec.type, list(known)))
    entry = known[spec.type]
    severity = spec.severity or ("error" if entry.is_audit else entry.severity)
    blocking = spec.blocking if spec.blocking is not None else entry.is_audit and severity == "error"
    if blocking and spec.severity == "warn":
        raise ConfigError(
            f"{where}.blocking",
            "a check of severity warn cannot block: its run would go on while automation waits for ever",
            "Set severity: error, or leave blocking out.",
        )
    if blocking:
        severity = "error"
    given = dict(spec.options)
    name = given.pop("name", entry.name)
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{where}.name", "must be letters, digits and underscores", "Rename the check.")
    try:
        options = entry.options.model_validate(given)
    except ValidationError as error:
        raise _options_error(where, error, entry.options) from error
    return StreamCheck(name, entry, severity, blocking, options)


def _options_error(where: str, error: ValidationError, model: type[Options]) -> ConfigError:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    known = [*model.model_fields, "type", "name", "severity", "blocking"]
    if first["type"] == "extra_forbidden":
        return ConfigError(f"{where}.{path}", "unknown key", did_you_mean(path, known))
    return ConfigError(f"{where}.{path}", first["msg"].removeprefix("Value error, "), "See docs/checks.md.")
