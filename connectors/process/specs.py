"""What the source files of all kinds that run a program have in common."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Self, cast

from pydantic import Field, model_validator

from connectors.installing.spec import InstalledConnectorSpec
from connectors.process.child import Limits
from connectors.secrets import is_reference, resolve
from connectors.specs import StreamSpec


class ProcessConnectorSpec(InstalledConnectorSpec):
    """How to run the program; which program it is, see `InstalledConnectorSpec`.

    config: what it is configured with; texts anywhere in it may be references.
    stall_timeout: a run that says nothing for so long is given up. time_limit, memory_mb: of the whole process group.
    """

    config: Mapping[str, Any] = Field(default_factory=dict)
    stall_timeout: timedelta = Field(default=timedelta(minutes=15), gt=timedelta(0))
    time_limit: timedelta | None = Field(default=None, gt=timedelta(0))
    memory_mb: int | None = Field(default=None, ge=16)

    @property
    def limits(self) -> Limits:
        return Limits(self.stall_timeout, self.time_limit, self.memory_mb)


class ProcessStreamSpec(StreamSpec):
    """A stream that a program reads."""

    @model_validator(mode="after")
    def _reads_onwards(self) -> Self:
        if self.partitions is not None:
            raise ValueError("partitions: the program reads from its own state and cannot be told a slice of time")
        return self


def resolved(value: Any, where: str) -> Any:
    """The value with every reference in it replaced, at any depth.

    Raises:
        ConfigError: a variable is not set.
    """
    if isinstance(value, str):
        return resolve(value, where)
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value)
        return {key: resolved(item, f"{where}.{key}") for key, item in items.items()}
    if isinstance(value, list | tuple):
        return [resolved(item, f"{where}[{index}]") for index, item in enumerate(cast("list[Any]", value))]
    return value


def secrets_in(value: Any, where: str) -> list[str]:
    """The values behind every reference."""
    if isinstance(value, str):
        return [resolve(value, where)] if is_reference(value) else []
    if isinstance(value, Mapping):
        return [found for item in cast("Mapping[str, Any]", value).values() for found in secrets_in(item, where)]
    if isinstance(value, list | tuple):
        return [found for item in cast("list[Any]", value) for found in secrets_in(item, where)]
    return []
