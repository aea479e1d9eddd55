"""What `headwater doctor` looks at. Every check yields findings and changes nothing: no file, no server, no table."""

from platform_assets.cli.checkup.finding import Finding
from platform_assets.cli.checkup.plan import Options, examine

__all__ = ["Finding", "Options", "examine"]
