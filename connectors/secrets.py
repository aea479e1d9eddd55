"""References to values that live outside the source file.

A reference is `env:NAME`. Definitions load without resolving any: only a sync, a check or a preview does.
"""

import os
import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator

from connectors.errors import ConfigError

REFERENCE = re.compile(r"^env:([A-Za-z_][A-Za-z0-9_]*)$")
MASK = "••••"


def is_reference(value: str) -> bool:
    return REFERENCE.match(value) is not None


def _require_reference(value: str) -> str:
    if not is_reference(value):
        # the value itself is never echoed: it may be the secret
        raise ValueError("a secret must be a reference such as env:STRIPE_API_KEY, not a literal value")
    return value


SecretRef = Annotated[str, AfterValidator(_require_reference)]
"""A secret: always `env:NAME`, a literal is refused."""

ValueRef = str
"""A plain value or `env:NAME`."""


def resolve(value: str, where: str) -> str:
    """The value itself, or the environment variable that it names.

    Raises:
        ConfigError: the variable is not set or empty.
    """
    match = REFERENCE.match(value)
    if match is None:
        return value
    found = os.environ.get(match[1], "")
    if not found:
        raise ConfigError(
            where,
            f"environment variable {match[1]} is not set",
            f"Set {match[1]} in the environment or in .env (see .env.example), then run `headwater doctor`.",
        )
    return found


def mask(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret value replaced; secrets under 4 characters are left (they would mask everything)."""
    for secret in sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
