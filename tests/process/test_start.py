"""What is done before a program is started: as little as can be."""

import subprocess
import sys
from pathlib import Path


def test_dlt_is_not_imported_before_the_source_is_asked() -> None:
    """It takes half of the imports; the first package brings it, while the source already answers."""
    code = "import sys, connectors.sync.together; sys.exit('dlt' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0
