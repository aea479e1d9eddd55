"""How the source is started: from its environment, from this machine, with a manifest, or in a container."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from connectors.errors import ConfigError
from connectors.installing import Watch, command_of
from connectors.process.child import Command, Workplace

if TYPE_CHECKING:
    from connectors.kinds.airbyte import AirbyteConnectorSpec

_CLIENTS = ("docker", "podman")
_INSIDE = "/headwater"
_CLIENT_VARIABLES = (
    *("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "CONTAINER_HOST"),
    *("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "HOME", "PATH"),
)


@dataclass(frozen=True, slots=True)
class Launcher:
    """One program, ready to be run. head: words before the verb. tail: after its options.

    keeps: a folder that is the program's alone and never changes, for what it says of itself; None: there is none.
    client: of the container engine, whose options `head` then has; None: no container.
    """

    head: tuple[str, ...]
    environment: Mapping[str, str]
    tail: tuple[str, ...] = ()
    keeps: Path | None = None
    client: str | None = None

    def command(self, verb: str, files: Mapping[str, Path], doing: str) -> Command:
        """files: by option, e.g. `config`."""
        options: list[str] = []
        for option, path in files.items():
            options += [f"--{option}", f"{_INSIDE}/{path.name}" if self.client else str(path)]
        words = (*self.head, verb, *options, *(self.tail if verb != "spec" else ()))
        if self.client is None:
            return Command(words, doing, self.environment)
        # the engine's daemon runs the container, not our process group
        name = f"headwater-{uuid4().hex[:16]}"
        started = (self.client, "run", "--name", name, *words)
        return Command(started, doing, self.environment, ending=(self.client, "rm", "--force", name))


def launcher(spec: "AirbyteConnectorSpec", environment: Mapping[str, str], place: Workplace) -> Launcher:
    """Installs the source when it is not there yet. Nothing of it calls home unless the file's `env` says so.

    Raises:
        ConfigError: no such program, manifest or container client. Else what an installation raises.
    """
    environment = {"DO_NOT_TRACK": "1", **environment}
    if spec.image is not None:
        return _container(spec, environment, place)
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


def _container(spec: "AirbyteConnectorSpec", environment: Mapping[str, str], place: Workplace) -> Launcher:
    """`--init` hands the client's signals to the source, `--rm` leaves nothing behind; no log keeps the records."""
    own = {name: os.environ[name] for name in _CLIENT_VARIABLES if name in os.environ}
    client = _client(place.where, own)
    user = ("--user", f"{os.getuid()}:{os.getgid()}")
    if Path(client).name == "podman" and os.getuid() != 0:
        user = ("--userns=keep-id",)
    memory = ("--memory", f"{spec.memory_mb}m") if spec.memory_mb is not None else ()
    passed = [word for name in environment for word in ("--env", name)]
    mount = f"type=bind,source={place.folder},target={_INSIDE}"
    head = (
        *("--rm", "--init", "--stop-timeout", "1", "--log-driver", "none", *user, *memory, *passed),
        *("--env", f"HOME={_INSIDE}", "--mount", mount, spec.image or ""),
    )
    return Launcher(head, {**own, **environment}, client=client)


def _client(where: str, environment: Mapping[str, str]) -> str:
    """docker or podman; where both are installed, the first whose engine answers."""
    found = [path for name in _CLIENTS if (path := shutil.which(name))]
    if not found:
        raise ConfigError(
            where,
            "connector.image needs docker or podman, and neither is on PATH",
            "Install one of them, or run the source from its package.",
        )
    return next((path for path in found[:-1] if _answers(path, environment)), found[-1])


def _answers(client: str, environment: Mapping[str, str]) -> bool:
    try:
        asked = subprocess.run(  # noqa: S603 a program on PATH
            [client, "version"], env=dict(environment), capture_output=True, timeout=30, check=False
        )
    except (subprocess.TimeoutExpired, OSError):
        return False
    return asked.returncode == 0
