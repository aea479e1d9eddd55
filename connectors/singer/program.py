"""A tap as a program: how it is run, what it offers."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from connectors.contract import DiscoveredStream
from connectors.errors import ConfigError, HeadwaterError
from connectors.installing import Watch, command_of
from connectors.process.child import Child, Command, Workplace
from connectors.process.failures import failure
from connectors.process.session import Dialect
from connectors.process.specs import resolved, secrets_in
from connectors.singer.catalog import Catalog

if TYPE_CHECKING:
    from connectors.kinds.singer import SingerConnectorSpec
    from connectors.specs import SourceSpec

_LONGEST_CATALOG = 256 << 20


class TapProgram:
    """Raises ConfigError when a reference is not set."""

    def __init__(self, source: "SourceSpec", spec: "SingerConnectorSpec") -> None:
        where = f"{source.source}: connector"
        self.source = source
        self.spec = spec
        self.config: Mapping[str, Any] = resolved(spec.config, f"{where}.config")
        self.environment: Mapping[str, str] = resolved(spec.env, f"{where}.env")
        self.secrets: Sequence[str] = [*secrets_in(spec.config, where), *secrets_in(spec.env, where)]

    def dialect(self) -> Dialect:
        from connectors.singer.dialect import SingerDialect

        return SingerDialect(self)

    def check(self) -> str:
        """Discovery is the one thing that every tap does without reading."""
        streams = self.discover()
        return f"the tap offers {len(streams)} streams"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        with tempfile.TemporaryDirectory(prefix="headwater-tap-") as folder:
            place = Workplace(self.source.source, Path(folder), self.secrets)
            return tuple(self.catalog(place).streams())

    def command(self, place: Workplace) -> list[str]:
        """The tap with its configuration, installed when it is not yet."""
        executable = command_of(self.spec, place.where, Watch(place.log, place.cancelled))
        config = dict(self.config)
        if self.spec.batch:
            storage = {"root": f"file://{place.folder}", "prefix": "batch-"}
            config |= {"batch_config": {"encoding": {"format": "jsonl", "compression": "gzip"}, "storage": storage}}
        return [str(executable), "--config", str(place.file("config.json", json.dumps(config)))]

    def mapped_name(self, tap_stream: str) -> Iterator[str]:
        """What the configuration's stream maps, which the tap itself follows, call the stream; nothing without one."""
        maps = self.config.get("stream_maps")
        settings = cast("Mapping[str, Any]", maps).get(tap_stream) if isinstance(maps, Mapping) else None
        if isinstance(settings, Mapping) and (alias := cast("Mapping[str, Any]", settings).get("__alias__")):
            yield str(alias)

    def catalog(self, place: Workplace) -> Catalog:
        """The catalog of the file in the source file, else what the tap discovers now: it is never stale.

        Raises:
            HeadwaterError: the tap failed, or gave no catalog.
        """
        if self.spec.catalog is not None:
            where = f"{place.where}: connector.catalog"
            try:
                text = Path(self.spec.catalog).read_text(encoding="utf-8")
                return Catalog.parse(text, where, self.spec.catalog)
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(where, f"cannot be read: {error}", "Write it with `tap --discover`.") from error
            except HeadwaterError as error:
                raise ConfigError(where, error.what, "Write it anew with `tap --discover`.") from error
        command = Command([*self.command(place), "--discover"], "discovering streams", self.environment)
        with Child(place, command, self.spec.limits) as child:
            text = child.output(_LONGEST_CATALOG)
            if error := failure(place.where, child.finish()):
                raise error
        return Catalog.parse(text, place.where, "discovery")
