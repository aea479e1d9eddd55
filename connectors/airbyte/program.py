"""One Airbyte source: what it says of itself, and the dialect of a read."""

import json
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from connectors.airbyte import catalog, config, failures
from connectors.airbyte.kept import KeptConfig, texts_in
from connectors.airbyte.launch import Launcher, launcher
from connectors.airbyte.lines import Line, Reading
from connectors.contract import Common, DiscoveredStream
from connectors.errors import ConfigError, HeadwaterError, SourceError
from connectors.http.vault import KEY_VARIABLE, has_key
from connectors.process import messages
from connectors.process.child import Child, Ending, Limits, Oversized, Workplace
from connectors.process.connector import ProcessConnector
from connectors.process.session import Joined
from connectors.process.specs import resolved, secrets_in
from connectors.specs import SourceSpec, StreamSpec

if TYPE_CHECKING:
    from connectors.http.vault import Connect
    from connectors.kinds.airbyte import AirbyteConnectorSpec, AirbyteStreamSpec
    from connectors.process.child import Command

Json = Mapping[str, Any]
_LONGEST = 64 << 20
"""Bytes of a line that is no record: some catalogs are large."""
_KEPT_SPEC = "headwater-spec.json"
_SHORTEST_SECRET = 6
Wanted = Callable[[Line], msgspec.Raw]


class AirbyteConnector(ProcessConnector):
    """An open source of kind airbyte."""

    def __init__(self, source: SourceSpec) -> None:
        self._airbyte = AirbyteProgram(source)
        super().__init__(source.source, self._airbyte)

    def keep_config(self, connect: "Connect") -> None:
        """connect: sessions with the warehouse, where a configuration that the source changes is kept."""
        self._airbyte.connect = connect


class AirbyteProgram:
    """Runs spec, check and discover; makes a dialect for every read.

    connect: see `AirbyteConnector.keep_config`; None keeps no configuration.
    """

    def __init__(self, source: SourceSpec) -> None:
        self.where = source.source
        self.spec = cast("AirbyteConnectorSpec", source.connector)
        place = f"{source.source}: connector"
        self.config = cast("Json", resolved(self.spec.config, f"{place}.config"))
        self.environment = cast("Mapping[str, str]", resolved(self.spec.env, f"{place}.env"))
        self.connect: Connect | None = None
        self.secrets = secrets_in(self.spec.config, f"{place}.config") + secrets_in(self.spec.env, f"{place}.env")

    def dialect(self) -> "AirbyteDialect":
        return AirbyteDialect(self)

    def check(self) -> str:
        """Raises the class of what the source answered: its own exit code says nothing."""
        with self._workplace() as place:
            program = launcher(self.spec, self.environment, place)
            files = {"config": self.config_file(program, place)}
            command = program.command("check", files, "checking the connection")
            answer = self.ask(command, place, lambda line: line.connectionStatus)
        status = str(answer.get("status"))
        if status != "SUCCEEDED":
            raise failures.of_status(self.where, str(answer.get("message") or ""), self.secrets)
        return "the source's own check succeeded"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        with self._workplace() as place:
            program = launcher(self.spec, self.environment, place)
            return catalog.offered(self.streams(program, {"config": self.config_file(program, place)}, place))

    def config_file(self, program: Launcher, place: Workplace) -> Path:
        """What the source itself has made of the configuration, else what the source file says.

        Raises:
            ConfigError: the source's specification refuses the configuration.
        """
        checked = config.checked(self.spec.config, self.config, self._specification(program, place), self.where)
        if (kept := self._kept) is not None and (changed := kept.newest()) is not None:
            self._protect(changed)
            checked = dict(changed)
        return place.file("config.json", json.dumps(checked))

    @property
    def _kept(self) -> KeptConfig | None:
        return KeptConfig(self.where, self.config, self.connect) if self.connect is not None and has_key() else None

    def keep(self, changed: Json) -> str:
        """Keeps a configuration that the source has changed; what to tell of it."""
        self._protect(changed)
        if (kept := self._kept) is None:
            why = "nobody says where" if has_key() else f"{KEY_VARIABLE} is not set"
            return (
                f"the source changed its configuration, which is not kept: {why}; renew what the source file refers to"
            )
        kept.keep(changed)
        return "the source changed its configuration, which is kept encrypted"

    def _protect(self, changed: Json) -> None:
        """What is new in a configuration may be a secret."""
        known = {*texts_in(self.config), *self.secrets}
        self.secrets += [text for text in texts_in(changed) if len(text) >= _SHORTEST_SECRET and text not in known]

    def streams(self, program: Launcher, files: Mapping[str, Path], place: Workplace) -> Sequence[Json]:
        """Of the catalog that the source discovers now: it is never kept, so it is never stale."""
        command = program.command("discover", files, "discovering the streams")
        return catalog.streams_of(self.ask(command, place, lambda line: line.catalog), self.where)

    def ask(self, command: "Command", place: Workplace, wanted: Wanted) -> Json:
        """The one answer of a short command.

        Raises:
            what the source reports, how it ended, or SourceError when it gave no answer.
        """
        reading = Reading(self.where, self.secrets, self.keep)
        answer: Json | None = None
        error: HeadwaterError | None = None
        with Child(place, command, self.spec.limits) as child:
            for line in child.lines(_LONGEST):
                if isinstance(line, Oversized):
                    raise SourceError(self.where, f"an answer of {line.size_bytes:,} bytes", "Look at its output.")
                found = _answer(line, wanted)
                if found is not None:
                    answer = found
                    continue
                said = reading.decode(line)
                if isinstance(said, messages.Failed):
                    error = error or said.error
                elif isinstance(said, messages.Note):
                    place.log(said.text)
            ending = child.finish()
        error = error or failures.of_ending(self.where, ending, list(reading.told))
        if answer is None:
            raise error or SourceError(self.where, f"no answer while {command.doing}", "Is it an Airbyte source?")
        return answer

    def _specification(self, program: Launcher, place: Workplace) -> Json:
        if self.spec.manifest is not None:
            return _of_manifest(Path(self.spec.manifest), self.where)
        kept = program.keeps / _KEPT_SPEC if program.keeps is not None else None
        if kept is not None and kept.exists():
            return cast("Json", json.loads(kept.read_text(encoding="utf-8")))
        answer = self.ask(program.command("spec", {}, "asking for its specification"), place, lambda line: line.spec)
        found = answer.get("connectionSpecification") or {}
        if not isinstance(found, Mapping):
            what = f"its specification is {type(found).__name__}, not an object"
            raise SourceError(self.where, what, "Report it to the source's author.")
        if kept is not None:
            with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False, encoding="utf-8") as file:
                json.dump(found, file)
            Path(file.name).rename(kept)
        return cast("Json", found)

    @contextmanager
    def _workplace(self) -> Generator[Workplace]:
        with tempfile.TemporaryDirectory(prefix="headwater-airbyte-") as folder:
            yield Workplace(self.where, Path(folder), self.secrets)


class AirbyteDialect:
    """One read: spec, discover and read, in this order, with the states that the streams committed last."""

    def __init__(self, program: AirbyteProgram) -> None:
        self.where = program.where
        self.limits: Limits = program.spec.limits
        self.secrets: Sequence[str] = program.secrets
        self._program = program
        self._reading = Reading(program.where, program.secrets, program.keep)
        self._first: list[messages.Message] = []
        self._has_spoken = False

    def source_name(self, stream: StreamSpec) -> str:
        found = cast("AirbyteStreamSpec", stream)
        return f"{found.namespace}.{found.stream_name}" if found.namespace is not None else found.stream_name

    def prepare(self, joined: Sequence[Joined], common: Common, place: Workplace) -> "Command":
        """A stream that is not in the catalog, or cannot be read as it is asked for, fails alone.

        Raises:
            ConfigError: that is so for all of them, or the configuration is refused.
        """
        self._program.connect = common.connect_shared or self._program.connect
        program = launcher(self._program.spec, self._program.environment, place)
        files = {"config": self._program.config_file(program, place)}
        streams = self._program.streams(program, files, place)
        chosen: dict[str, catalog.Chosen] = {}
        for one in joined:
            try:
                place_of_it = f"{self.where}.{one.stream.name}"
                chosen[one.name] = catalog.choose(cast("AirbyteStreamSpec", one.stream), streams, place_of_it)
            except ConfigError as error:
                if len(joined) == 1:
                    raise
                self._first.append(messages.Failed(error, one.name))
        if not chosen:
            raise cast("messages.Failed", self._first[0]).error
        names = {(one.namespace, one.name): name for name, one in chosen.items()}
        # many sources leave the namespace out of their records
        names = {(None, one.name): name for name, one in chosen.items()} | names
        incremental = frozenset(name for name, one in chosen.items() if one.is_incremental)
        self._reading = Reading(self.where, self.secrets, self._program.keep, names, incremental)
        self._first += [messages.Types(name, one.types) for name, one in chosen.items() if one.types]
        configured = {"streams": [one.configured for one in chosen.values()]}
        files["catalog"] = place.file("catalog.json", json.dumps(configured))
        if states := _states(joined, chosen, common.position()):
            files["state"] = place.file("state.json", json.dumps(states))
        return program.command("read", files, f"reading {len(chosen)} streams")

    def decode(self, line: bytes) -> messages.Message | Sequence[messages.Message] | None:
        self._has_spoken = True
        said = self._reading.decode(line)
        if self._first:
            first, self._first = self._first, []
            return [*first, *(said if isinstance(said, Sequence) else [said] if said is not None else [])]
        return said

    def failure(self, ending: Ending) -> HeadwaterError | None:
        """Exit code 0 is no success when the source gave a stream up."""
        if error := failures.of_ending(self.where, ending, list(self._reading.told)):
            return error
        if not self._has_spoken:
            return SourceError(self.where, f"said nothing while {ending.doing}", "Is it an Airbyte source?")
        if given_up := sorted(set(self._reading.incomplete) - self._reading.complete):
            told = f"; it said: {self._reading.told[-1][:300]}" if self._reading.told else ""
            return SourceError(
                self.where, f"the source ended with {', '.join(given_up)} incomplete{told}", "Read the run's log."
            )
        return None


def _states(joined: Sequence[Joined], chosen: Mapping[str, catalog.Chosen], shared: Json) -> object:
    """What the source gets as its state: in the form in which it gave it."""
    position = cast("Json", shared.get("data") or {})
    if "global" in position:
        return [{"type": "GLOBAL", "global": position["global"]}]
    if "legacy" in position:
        return position["legacy"]
    return [
        {
            "type": "STREAM",
            "stream": {
                "stream_descriptor": {"name": one.name, **({"namespace": one.namespace} if one.namespace else {})},
                "stream_state": member.position["stream_state"],
            },
        }
        for member in joined
        if (one := chosen.get(member.name)) and one.is_incremental and member.position.get("stream_state")
    ]


def _answer(line: bytes, wanted: Wanted) -> Json | None:
    try:
        return msgspec.json.decode(wanted(msgspec.json.decode(line, type=Line)), type=dict[str, Any])
    except msgspec.DecodeError:
        return None


def _of_manifest(path: Path, where: str) -> Json:
    """The specification that a manifest declares; everything is allowed where it declares none."""
    import yaml

    try:
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec = manifest.get("spec") or {}
        return cast("Json", dict(spec.get("connection_specification") or {}))
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        what = f"connector.manifest {path} is no manifest: {' '.join(str(error).split())[:300]}"
        raise ConfigError(where, what, "Correct the manifest.") from error
