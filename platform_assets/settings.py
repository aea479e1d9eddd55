"""What the environment says, read when asked and never at import.

`.env` in the project root is read first; a variable that the environment already has wins over it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from connectors.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseModel):
    """One reading of the environment.

    home: folder of everything that a machine keeps for this project: server data, secrets, logs.
    warehouse_url: admin URL of a PostgreSQL 14+ to use instead of the embedded server.
    dagster_url: database of Dagster's own storage; by default a second database of the warehouse's server.
    passwords: given role passwords by role (`loader`, `transformer`, `reader`); the others are generated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    project_root: Path = PROJECT_ROOT
    home: Path
    warehouse_url: str | None = Field(default=None, repr=False)
    dagster_url: str | None = Field(default=None, repr=False)
    passwords: Mapping[str, str] = Field(default_factory=dict, repr=False)

    @property
    def is_embedded(self) -> bool:
        return self.warehouse_url is None


def load_settings(environ: Mapping[str, str] | None = None, project_root: Path = PROJECT_ROOT) -> Settings:
    """The settings of `environ`, or of this process after `.env` was read.

    Raises:
        ConfigError: a URL that is not one of PostgreSQL.
    """
    if environ is None:
        read_dotenv(project_root)
        environ = os.environ
    home = Path(environ.get("HEADWATER_HOME") or ".headwater").expanduser()
    return Settings(
        project_root=project_root,
        home=home if home.is_absolute() else project_root / home,
        warehouse_url=_postgres_url(environ, "HEADWATER_WAREHOUSE_URL"),
        dagster_url=_postgres_url(environ, "HEADWATER_DAGSTER_URL"),
        passwords={
            role: environ[name]
            for role in ("loader", "transformer", "reader")
            if environ.get(name := f"HEADWATER_{role.upper()}_PASSWORD")
        },
    )


def process_environment(settings: Settings) -> dict[str, str]:
    """What Dagster, dbt, dlt and Sling find in their environment, in this process and in those it starts.

    DAGSTER_HOME is the folder of dagster.yaml; Dagster's own files go to `home/dagster`. Nothing here is secret.
    """
    return {
        "DAGSTER_HOME": str(settings.project_root),
        "HEADWATER_HOME": str(settings.home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "SLING_DISABLE_TELEMETRY": "true",
    }


def read_dotenv(project_root: Path = PROJECT_ROOT) -> None:
    """Put `.env` of the project root into this process's environment; what is set already stays."""
    from dotenv import load_dotenv  # a process that passes its own mapping never needs it

    load_dotenv(project_root / ".env", override=False)


def _postgres_url(environ: Mapping[str, str], name: str) -> str | None:
    """The URL in libpq's own spelling: a driver suffix such as `+psycopg2` is taken off."""
    value = environ.get(name, "").strip()
    if not value:
        return None
    scheme = urlsplit(value).scheme.partition("+")[0]
    if scheme not in ("postgresql", "postgres"):
        # the value is never echoed: it holds a password
        raise ConfigError(
            name,
            f"is not a PostgreSQL URL (it starts with {scheme or 'no scheme'!r})",
            "Write it as postgresql://user:password@host:5432/database, in the environment or in .env.",
        )
    return "postgresql" + value[value.index("://") :]
