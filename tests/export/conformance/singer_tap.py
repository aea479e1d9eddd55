"""singer_sdk's own tap tests over an executable. Run by the Python that has singer_sdk; not collected with ours.

TAP names the executable, TAP_CONFIG its configuration file.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from singer_sdk import Tap
from singer_sdk.testing import SuiteConfig, get_tap_test_class

TAP, CONFIG = os.environ["TAP"], os.environ["TAP_CONFIG"]


def run(*words):
    return subprocess.run([TAP, *words], check=True, capture_output=True, text=True).stdout


class ExecutableTap(Tap):
    """Everything that the tests ask of a tap, asked of the executable."""

    name = "tap-shop"
    config_jsonschema = {"properties": {}}  # noqa: RUF012  as the SDK has it

    def __init__(self, *, config=None, catalog=None, **_):
        self.given, self.found = catalog, None

    @property
    def catalog_dict(self):
        self.found = self.found or json.loads(run("--config", CONFIG, "--discover"))
        return self.found

    @property
    def streams(self):
        return {
            entry["stream"]: SimpleNamespace(
                name=entry["stream"],
                schema=entry["schema"],
                primary_keys=entry["key_properties"],
                stream_maps=[SimpleNamespace(transformed_schema=entry["schema"])],
            )
            for entry in self.catalog_dict["streams"]
        }

    def run_discovery(self):
        return json.dumps(self.catalog_dict)

    def print_version(self):
        assert json.loads(run("--about"))["name"] == self.name

    def print_about(self, output_format=None):
        assert json.loads(run("--about"))["settings"]["required"]

    def run_connection_test(self):
        return bool(run("--config", CONFIG))

    def run_sync_dry_run(self, dry_run_record_limit=None, streams=None):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "catalog.json")
            path.write_text(json.dumps(self.given or self.catalog_dict))
            sys.stdout.write(run("--config", CONFIG, "--catalog", str(path)))
        return True


TestExecutableTap = get_tap_test_class(ExecutableTap, config={}, suite_config=SuiteConfig())
