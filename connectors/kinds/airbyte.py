"""Kind `airbyte`: any source that speaks the Airbyte protocol: a package, a program, a manifest or a container image.

    connector: {kind: airbyte, package: airbyte-source-faker==7.2.1, executable: source-faker, config: {count: 1000}}
    streams:
      - {name: users, primary_key: id, write: merge}

The source gets a virtual environment of its own (docs/installing.md); nothing of it is imported here.
"""

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from connectors.contract import Connector, Kind
from connectors.installing.spec import BesidePath, Package
from connectors.process.specs import ProcessConnectorSpec, ProcessStreamSpec

if TYPE_CHECKING:
    from connectors.specs import SourceSpec

MANIFEST_PACKAGE = "airbyte-cdk==7.39.1"
"""What runs a manifest, in the version that it was tested with; connector.package chooses another."""
MANIFEST_COMMAND = "source-declarative-manifest"


class AirbyteConnectorSpec(ProcessConnectorSpec):
    """One of package, executable, manifest and image says what runs.

    manifest: a declarative source, beside the source file. components: its custom Python code.
    image: a container image, run by docker or podman, whichever is on PATH.
    config: what the source itself asks for; it is checked against the source's own specification, and what that calls
        a secret must be a reference.
    """

    manifest: BesidePath | None = None
    components: BesidePath | None = None
    image: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w./:@-]*$")

    @model_validator(mode="after")
    def _runs_one_thing(self, info: ValidationInfo) -> Self:
        del info
        if self.image is not None and (self.package or self.executable or self.manifest):
            raise ValueError("image holds the whole source: package, executable and manifest have no place beside it")
        if self.components is not None and self.manifest is None:
            raise ValueError("components is custom code of a manifest; add manifest: manifest.yaml")
        return self

    @property
    def has_program(self) -> bool:
        return bool(self.package or self.executable or self.manifest or self.image)

    @property
    def to_install(self) -> Package | None:
        if self.manifest is not None and self.package is None and self.executable is None:
            return Package(MANIFEST_PACKAGE, self.python or "", self.requires)
        return super().to_install

    def with_runner(self) -> Self:
        """The command that runs a manifest is named, where the file does not name one."""
        return self.model_copy(update={"executable": self.executable or MANIFEST_COMMAND, "package": self.runner})

    @property
    def runner(self) -> str | None:
        package = self.to_install
        return package.requirement if package else None


class AirbyteStreamSpec(ProcessStreamSpec):
    """One stream of the source's catalog.

    stream: its name there, None takes ours. namespace: where the catalog has the name more than once.
    sync_mode: None reads incrementally where the source can and the table is not replaced as a whole.
    """

    stream: str | None = Field(default=None, min_length=1)
    namespace: str | None = None
    sync_mode: Literal["full_refresh", "incremental"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _reading_only(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "destination_sync_mode" in raw:
            raise ValueError("destination_sync_mode is write here: overwrite is replace, append_dedup is merge")
        return raw

    @model_validator(mode="after")
    def _whole_or_onwards(self) -> Self:
        if self.sync_mode == "incremental" and self.reads_everything:
            raise ValueError("sync_mode: incremental reads what is new; write: replace and snapshot need all of it")
        return self

    @property
    def reads_everything(self) -> bool:
        return self.write == "replace" or self.snapshot

    @property
    def stream_name(self) -> str:
        return self.stream or self.name

    @property
    def offered_as(self) -> str:
        return self.stream_name


def _open(source: "SourceSpec") -> Connector:
    """The connector with its references resolved; nothing is installed or started.

    Raises:
        ConfigError: a reference is not set.
    """
    from connectors.airbyte.program import AirbyteConnector

    return AirbyteConnector(source)


KIND = Kind(
    name="airbyte",
    connector=AirbyteConnectorSpec,
    stream=AirbyteStreamSpec,
    open=_open,
    storage_kind="airbyte",
    default_write="append",
    reads_together=True,
)
