"""`python -m platform_assets.cli` is `headwater`, also where no console script is installed."""

import sys

from platform_assets.cli import main

sys.exit(main())
