"""What a source file says of the program behind it; light, for it is read with the definitions."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self, cast
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from connectors.secrets import ValueRef
from connectors.specs import ConnectorSpec, Names

LOCK_NAME = "connector.lock"
_GIT = re.compile(r"^(?:[A-Za-z0-9._-]+(?:\[[^]]*\])? *@ *)?git\+")


def _requirement(text: str) -> str:
    if _GIT.match(text):
        url = text[text.index("git+") + len("git+") :]
        try:
            has_password = urlsplit(url).password is not None
        except ValueError:
            has_password = True
        if has_password:
            # the text is never echoed: it holds the secret
            raise ValueError("a git reference must hold no password; use git's own credential store")
        return text
    try:
        Requirement(text)
    except InvalidRequirement:
        raise ValueError(f"{text!r} is no requirement; write name==1.2.3 or git+https://host/repo@tag") from None
    return text


RequirementText = Annotated[str, AfterValidator(_requirement)]
"""`name==1.2.3`, `name>=1,<2`, `name[extra]`, `git+https://host/repo@tag` or `name @ git+...`."""


def default_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def beside(path: str, info: ValidationInfo) -> str:
    """A path of a source file as an absolute one: relative paths lie beside that file. `~` is the home folder."""
    folder = cast("Mapping[str, Any]", info.context or {}).get("folder")
    found = Path(path).expanduser()
    return str(folder / found) if folder and not found.is_absolute() else str(found)


BesidePath = Annotated[str, AfterValidator(beside)]


@dataclass(frozen=True, slots=True)
class Package:
    """What is installed. python: a version such as `3.11`, the path of an interpreter, or empty: whatever is locked."""

    requirement: str
    python: str
    requires: tuple[str, ...] = ()

    def with_python(self) -> "Package":
        return self if self.python else replace(self, python=default_python())

    def is_met_by(self, locked: "Package") -> bool:
        same = (self.requirement, self.requires) == (locked.requirement, locked.requires)
        return same and self.python in ("", locked.python)


class InstalledConnectorSpec(ConnectorSpec):
    """A program that speaks a protocol of connectors.

    package: what is installed, into a virtual environment that nothing else uses.
    requires: further requirements in it, e.g. `setuptools<81` for programs that still import pkg_resources.
    python: its Python, a version or the path of an interpreter; None is the locked one, at first the platform's own.
    executable: the command in the package, if there are several; without a package a program on this machine: a path
        (relative ones lie beside the source file) or a name on PATH.
    lock: the hash-locked packages, beside the source file; written by `headwater connectors lock`.
    env: environment variables of the program, which gets none of ours; values may be references.
    """

    package: RequirementText | None = None
    requires: tuple[RequirementText, ...] = ()
    python: str | None = Field(default=None, pattern=r"^(\d+\.\d+(\.\d+)?|.*/.*)$")
    executable: str | None = Field(default=None, min_length=1)
    lock: BesidePath | None = None
    env: Mapping[str, ValueRef] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _finds_its_lock(cls, raw: Any, info: ValidationInfo) -> Any:
        """The default is set as if it had been written, so that it stays where it is in another process."""
        folder = cast("Mapping[str, Any]", info.context or {}).get("folder")
        if not isinstance(raw, Mapping) or folder is None:
            return raw
        given = dict(cast("Mapping[str, Any]", raw))
        given.setdefault("lock", LOCK_NAME)
        executable = given.get("executable")
        if isinstance(executable, str) and not given.get("package") and "/" in executable:
            given["executable"] = beside(executable, info)
        return given

    @model_validator(mode="after")
    def _has_a_program(self) -> Self:
        if not self.has_program:
            raise ValueError("needs package: name==1.2.3, or executable: a program on this machine")
        return self

    @property
    def has_program(self) -> bool:
        return bool(self.package or self.executable)

    @property
    def to_install(self) -> Package | None:
        """None: nothing, the program is on this machine already."""
        if self.package is None:
            return None
        return Package(self.package, self.python or "", self.requires)


__all__ = ["BesidePath", "InstalledConnectorSpec", "LOCK_NAME", "Names", "Package", "beside", "default_python"]
