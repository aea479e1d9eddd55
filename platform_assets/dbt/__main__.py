"""`eval "$(python -m platform_assets.dbt)"` lets plain dbt of this shell into the warehouse, started if need be."""

import shlex
import sys

from connectors.errors import HeadwaterError
from platform_assets.dbt.environment import dbt_environment
from platform_assets.settings import load_settings
from platform_assets.warehouse import ensure_warehouse


def main() -> int:
    """Prints one export a variable, the transformer's password among them; an error goes to stderr."""
    try:
        variables = dbt_environment(ensure_warehouse(load_settings()))
    except HeadwaterError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
