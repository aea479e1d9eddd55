"""A Dockerfile that makes an image of one exported source."""

import re
from pathlib import Path
from typing import Literal

from connectors.errors import ConfigError

_TEMPLATE = """\
# An image of the source {source}, as {what}. Build it in the project's folder:
#   docker build -f {file} -t {tag} .
FROM python:{python}-slim
WORKDIR /headwater
RUN pip install --no-cache-dir uv=={uv}
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY connectors ./connectors
COPY platform_assets ./platform_assets
COPY demo/*.py ./demo/
RUN uv sync --frozen --no-dev && useradd --create-home reader && mkdir .headwater && chown reader .headwater
USER reader
{rest}"""
_REST = {
    "singer": 'ENTRYPOINT ["/headwater/.venv/bin/headwater", "export", "singer", "{source}"]\n',
    "airbyte": """\
ENV AIRBYTE_ENTRYPOINT="/headwater/.venv/bin/headwater export airbyte {source}"
LABEL io.airbyte.name={tag} io.airbyte.version={version}
ENTRYPOINT ["/headwater/.venv/bin/headwater", "export", "airbyte", "{source}"]
""",
}


def write(path: Path, source: str, protocol: Literal["singer", "airbyte"], root: Path) -> None:
    """Writes the file.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    from importlib.metadata import version

    tag = f"{'tap' if protocol == 'singer' else 'source'}-{source.replace('_', '-')}"
    what = "a Singer tap" if protocol == "singer" else "an Airbyte source"
    uv = re.search(r"^UV_VERSION *[:?]?= *(\S+)", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    rest = _REST[protocol].format(source=source, tag=tag, version=version("headwater"))
    text = _TEMPLATE.format(
        source=source, what=what, file=path.name, tag=tag, python="3.11", uv=uv[1] if uv else "0.9", rest=rest
    )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(str(path), "is there already", "Name another file, or remove it.") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be written: {error}", "Name a file in a folder that is there.") from error
