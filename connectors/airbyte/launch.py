"""How the source is started: from its environment, from this machine, with a manifest, or in a container."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.errors import ConfigError
from connectors.installing import Watch, command_of
from connectors.process.child import Command, Workplace

if TYPE_CHECKING:
    from connectors.kinds.airbyte import AirbyteConnectorSpec

_CLIENTS = ("docker", "podman")
_INSIDE = "/headwater"
_CLIENT_VARIABLES = ("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "CONTAINER_HOST", "XDG_RUNTIME_DIR", "HOME")


@dataclass(frozen=True, slots=True)
class Launcher:
    """One program, ready to be run. head: words before the verb. tail: after its options.

    keeps: a folder that is the program's alone and never changes, for what it says of itself; None: there is none.
    inside: where a container sees the workplace; None outside of one.
    """

    head: tuple[str, ...]
    environment: Mapping[str, str]
    tail: tuple[str, ...] = ()
    keeps: Path | None = None
    inside: str | None = None

    def command(self, verb: str, files: Mapping[str, Path], doing: str) -> Command:
        """files: by option, e.g. `config`."""
        options: list[str] = []
        for option, path in files.items():
            options += [f"--{option}", f"{self.inside}/{path.name}" if self.inside else str(path)]
        tail = self.tail if verb != "spec" else ()
        return Command((*self.head, verb, *options, *tail), doing, self.environment)


def launcher(spec: "AirbyteConnectorSpec", environment: Mapping[str, str], place: Workplace) -> Launcher:
    """Installs the source when it is not there yet. Nothing of it calls home unless the file's `env` says so.

    Raises:
        ConfigError: no such program, manifest or container client. Else what an installation raises.
    """
    environment = {"DO_NOT_TRACK": "1", **environment}
    if spec.image is not None:
        return _container(spec.image, environment, place)
    if spec.manifest is None:
        path = command_of(spec, place.where, Watch(place.log, place.cancelled))
        return Launcher((str(path),), environment, keeps=_venv_of(spec, path))
    for name, file in (("manifest", spec.manifest), ("components", spec.components)):
        if file is not None and not Path(file).is_file():
            hint = "Relative paths lie beside the source file."
            raise ConfigError(place.where, f"connector.{name} {file} does not exist", hint)
    path = command_of(spec.with_runner(), place.where, Watch(place.log, place.cancelled))
    plain = Launcher((str(path),), environment, ("--manifest-path", spec.manifest))
    if spec.components is None:
        return plain
    unsafe = {**environment, "AIRBYTE_ENABLE_UNSAFE_CODE": "true"}
    return replace(plain, tail=(*plain.tail, "--components-path", spec.components), environment=unsafe)


def _venv_of(spec: "AirbyteConnectorSpec", path: Path) -> Path | None:
    return path.parent.parent if spec.to_install is not None else None


def _container(image: str, environment: Mapping[str, str], place: Workplace) -> Launcher:
    """The client runs in our process group; `--init` hands its signals to the source, `--rm` leaves nothing behind."""
    client = next((found for name in _CLIENTS if (found := shutil.which(name))), None)
    if client is None:
        raise ConfigError(
            place.where,
            "connector.image needs docker or podman, and neither is on PATH",
            "Install one of them, or run the source from its package.",
        )
    own = {name: os.environ[name] for name in _CLIENT_VARIABLES if name in os.environ}
    user = ("--userns=keep-id",) if Path(client).name == "podman" else ("--user", f"{os.getuid()}:{os.getgid()}")
    passed = [word for name in environment for word in ("--env", name)]
    mount = f"type=bind,source={place.folder},target={_INSIDE}"
    head = (client, "run", "--rm", "--init", *user, *passed, "--env", f"HOME={_INSIDE}", "--mount", mount, image)
    return Launcher(head, {**own, **environment}, inside=_INSIDE)
