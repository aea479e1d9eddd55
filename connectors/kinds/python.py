"""python: a connector that is a module of one's own, for what no declaration can say. See docs/python.md.

    connector: {kind: python, module: shop, base_url: env:SHOP_URL}

The module is imported when a source is opened, never with the definitions.
"""

import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Self, cast

from pydantic import Field, model_validator

from connectors.contract import Kind
from connectors.errors import ConfigError
from connectors.http.source import HttpConnectorSpec, HttpStreamSpec
from connectors.http.specs import Scalar
from connectors.secrets import SecretRef, ValueRef, resolve
from connectors.specs import SourceSpec, did_you_mean

if TYPE_CHECKING:
    from connectors.contract import Connector

_HOME = "connectors.custom"
_METHODS = ("check", "discover", "read")

ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?$")]
"""`shop` (connectors/custom/shop.py), `company.feeds.shop`, or either with its class: `shop:Shop`."""


class PythonConnectorSpec(HttpConnectorSpec):
    """Where the class is, what it is told, and, when it reads over HTTP, the keys of kind rest.

    options: what differs between installations; values may be references. secrets: references, masked everywhere.
    """

    module: ModuleName
    options: Mapping[str, ValueRef] = Field(default_factory=dict)
    secrets: Mapping[str, SecretRef] = Field(default_factory=dict)
    base_url: ValueRef = ""


class PythonStreamSpec(HttpStreamSpec):
    """Every key of a rest stream wins over the class's own; all may be left to the class.

    options: facts of this stream for the class.
    """

    path: str = ""
    options: Mapping[str, Scalar] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        # judged when the source is opened, together with what the class says
        return self


@dataclass(frozen=True, slots=True)
class Given:
    """What a class is made with: its source, and its options and secrets resolved. place: module and class."""

    source: SourceSpec
    options: Mapping[str, str]
    secrets: Mapping[str, str]
    place: str


def _open(source: SourceSpec) -> "Connector":
    """Imports the module and makes its connector.

    Raises:
        ConfigError: no such module or class, it cannot be imported, or a reference is not set.
    """
    spec = cast("PythonConnectorSpec", source.connector)
    where = f"{source.source}: connector"
    name, _, wanted = spec.module.partition(":")
    module = _imported(name if "." in name else f"{_HOME}.{name}", f"{where}.module")
    found = _connector_class(module, wanted, f"{where}.module")
    given = Given(
        source,
        {key: resolve(value, f"{where}.options.{key}") for key, value in spec.options.items()},
        {key: resolve(value, f"{where}.secrets.{key}") for key, value in spec.secrets.items()},
        f"{module.__name__}.{found.__name__}",
    )
    return cast("Connector", found(given))


def _imported(name: str, where: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(where, f"{name} needs a module that is not installed: {error.name}", "Install it.") from (
                error
            )
        hint = did_you_mean(name.rpartition(".")[2], _known()) if name.startswith(f"{_HOME}.") and _known() else ""
        raise ConfigError(
            where, f"no module {name}", hint or "`headwater new connector NAME` writes one; see docs/python.md."
        ) from error
    except Exception as error:
        what = f"{name} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError(where, what, "Correct the module; `--debug` shows where.") from error


def _known() -> list[str]:
    path: Iterable[str] = import_module(_HOME).__path__
    return [found.name for found in pkgutil.iter_modules(path) if not found.name.startswith("_")]


def _connector_class(module: ModuleType, wanted: str, where: str) -> type:
    own = {
        name: item
        for name, item in vars(module).items()
        if isinstance(item, type)
        and item.__module__ == module.__name__
        and all(callable(getattr(item, method, None)) for method in _METHODS)
    }
    if wanted in own:
        return own[wanted]
    if not wanted and len(own) == 1:
        return next(iter(own.values()))
    if not own:
        hint = "Derive a class from connectors.custom.HttpConnector or RowsConnector; see docs/python.md."
        raise ConfigError(where, f"{module.__name__} has no connector class", hint)
    what = f"{module.__name__} has no connector class {wanted}" if wanted else f"{module.__name__} has {len(own)}"
    short = module.__name__.removeprefix(f"{_HOME}.")
    raise ConfigError(where, what, f"Name one: {', '.join(f'module: {short}:{name}' for name in sorted(own))}.")


KIND = Kind(
    name="python",
    connector=PythonConnectorSpec,
    stream=PythonStreamSpec,
    open=_open,
    storage_kind="python",
    may_block=True,
)
