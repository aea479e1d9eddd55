"""The sources of kind `webhook`, ready to receive."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from connectors.errors import ConfigError
from connectors.kinds.webhook import WebhookConnectorSpec
from connectors.secrets import resolve
from connectors.specs import SourceSpec, did_you_mean
from platform_assets.settings import PROJECT_ROOT
from platform_assets.sources import load_sources
from platform_assets.webhooks.rates import Bucket
from platform_assets.webhooks.schemes import Verifier, verifier

KIND = "webhook"
PATH = "/hooks/"


@dataclass(frozen=True, slots=True)
class Hook:
    """One address that receives. path: `/hooks/<source>`; bucket: None takes any number of deliveries."""

    source: str
    path: str
    scheme: str
    secrets: int
    verify: Verifier
    max_body_bytes: int
    bucket: Bucket | None = None


def webhook_sources(names: Sequence[str] = (), root: Path = PROJECT_ROOT) -> tuple[SourceSpec, ...]:
    """The declared sources of this kind, or those of `names`.

    Raises:
        ConfigError: a source file is wrong, a name is no source of this kind, or there is none at all.
    """
    found = {spec.source: spec for spec in load_sources(root) if spec.connector.kind == KIND}
    if not found:
        raise ConfigError("webhooks", "no source of kind webhook is declared", "Add one; see docs/webhook.md.")
    for name in names:
        if name not in found:
            raise ConfigError(name, "is no source of kind webhook", did_you_mean(name, list(found)))
    return tuple(found[name] for name in dict.fromkeys(names)) if names else tuple(found.values())


def hook(source: SourceSpec) -> Hook:
    """Raises ConfigError: a secret is not set, or not of its scheme's form."""
    spec = cast("WebhookConnectorSpec", source.connector)
    where = f"{source.source}: connector.secret"
    secrets = [resolve(reference, where) for reference in spec.secret]
    limit = spec.rate_limit
    return Hook(
        source=source.source,
        path=f"{PATH}{source.source}",
        scheme=spec.scheme,
        secrets=len(secrets),
        verify=verifier(spec, secrets, where),
        max_body_bytes=spec.max_body_bytes,
        bucket=Bucket(limit.requests, limit.per.total_seconds()) if limit else None,
    )
