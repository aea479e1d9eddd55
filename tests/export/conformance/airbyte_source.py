"""airbyte_cdk's own source tests over an executable. Run by the Python that has airbyte_cdk; not collected with ours.

SOURCE names the executable.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import orjson
from airbyte_cdk.exception_handler import AirbyteTracedException
from airbyte_cdk.models import AirbyteMessageSerializer, ConfiguredAirbyteCatalogSerializer, Type
from airbyte_cdk.sources import Source
from airbyte_cdk.test.standard_tests import SourceTestSuiteBase

pytest_plugins = ["airbyte_cdk.test.standard_tests.pytest_hooks"]


class ExecutableSource(Source):
    """Every command is one run of the executable."""

    def _run(self, verb, **files):
        with tempfile.TemporaryDirectory() as folder:
            words = [os.environ["SOURCE"], verb]
            for name, content in files.items():
                path = Path(folder, f"{name}.json")
                path.write_text(json.dumps(content))
                words += [f"--{name}", str(path)]
            ended = subprocess.run(words, capture_output=True, text=True)
        for line in ended.stdout.splitlines():
            yield AirbyteMessageSerializer.load(orjson.loads(line))
        if ended.returncode:
            raise AirbyteTracedException(message=f"exit code {ended.returncode}: {ended.stderr[-500:]}")

    def _one(self, kind, field, verb, **files):
        return next(getattr(message, field) for message in self._run(verb, **files) if message.type == kind)

    def spec(self, logger):
        return self._one(Type.SPEC, "spec", "spec")

    def check(self, logger, config):
        return self._one(Type.CONNECTION_STATUS, "connectionStatus", "check", config=dict(config))

    def discover(self, logger, config):
        return self._one(Type.CATALOG, "catalog", "discover", config=dict(config))

    def read(self, logger, config, catalog, state=None):
        given = json.loads(orjson.dumps(ConfiguredAirbyteCatalogSerializer.dump(catalog)))
        yield from self._run("read", config=dict(config), catalog=given)


class TestExecutableSource(SourceTestSuiteBase):
    connector = ExecutableSource
