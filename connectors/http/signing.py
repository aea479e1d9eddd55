"""Requests that are signed one by one: HMAC with a timestamp, and AWS Signature Version 4."""

import base64
import hmac
import time
from datetime import UTC, datetime
from typing import Any

import httpx

from connectors.errors import ConfigError
from connectors.http.auth import Auth, Send, require_header_safe
from connectors.http.specs import HmacSpec, SigV4Spec
from connectors.secrets import resolve


def open_signing(spec: HmacSpec | SigV4Spec, where: str) -> Auth:
    """Resolves the references. Raises ConfigError when a variable or a library is missing."""
    return _Hmac(spec, where) if isinstance(spec, HmacSpec) else _SigV4(spec, where)


class _Signing:
    hosts: tuple[str, ...] = ()
    query_name: str | None = None
    secrets: tuple[str, ...] = ()

    def renew(self) -> bool:
        return False


class _Hmac(_Signing):
    def __init__(self, spec: HmacSpec, where: str) -> None:
        self._spec = spec
        key = resolve(spec.key, f"{where}.key")
        self._key = key.encode()
        self._key_id = resolve(spec.key_id, f"{where}.key_id") if spec.key_id is not None else None
        if self._key_id is not None:
            require_header_safe(self._key_id, f"{where}.key_id")
        self.secrets = (key,)

    def sign(self, request: httpx.Request, send: Send) -> httpx.Request:
        """The time is that of this attempt: a retry is signed anew."""
        spec = self._spec
        at = _timestamp(spec.timestamp)
        target = request.url.raw_path
        path, _, query = target.partition(b"?")
        found = {
            "timestamp": at.encode(),
            "key_id": (self._key_id or "").encode(),
            "method": request.method.encode(),
            "host": request.url.netloc,
            "path": path,
            "query": query,
            "target": target,
            "body": request.read(),
        }
        text = spec.separator.encode().join(found[part] for part in spec.parts)
        digest = hmac.new(self._key, text, spec.algorithm)
        signature = digest.hexdigest() if spec.encoding == "hex" else base64.b64encode(digest.digest()).decode()
        request.headers[spec.timestamp_header] = at
        request.headers[spec.header] = f"{spec.prefix}{signature}"
        if self._key_id is not None:
            request.headers[spec.key_id_header] = self._key_id
        return request


def _timestamp(form: str) -> str:
    if form == "iso":
        return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return str(int(time.time() * (1_000 if form == "epoch_ms" else 1)))


class _SigV4(_Signing):
    """Signed by botocore, AWS's own implementation."""

    def __init__(self, spec: SigV4Spec, where: str) -> None:
        try:
            from botocore.auth import SigV4Auth  # pyright: ignore[reportMissingImports]  an extra
            from botocore.awsrequest import AWSRequest  # pyright: ignore[reportMissingImports]  an extra
            from botocore.credentials import Credentials  # pyright: ignore[reportMissingImports]  an extra
        except ImportError as error:
            raise ConfigError(where, "needs botocore, which is not installed", "Install headwater[aws].") from error
        secret = resolve(spec.secret_key, f"{where}.secret_key")
        token = resolve(spec.session_token, f"{where}.session_token") if spec.session_token is not None else None
        access = resolve(spec.access_key, f"{where}.access_key")
        self.secrets = (secret, *((token,) if token else ()))
        self._request: Any = AWSRequest
        region = resolve(spec.region, f"{where}.region")
        self._signer: Any = SigV4Auth(Credentials(access, secret, token), spec.service, region)

    def sign(self, request: httpx.Request, send: Send) -> httpx.Request:
        for name in ("Authorization", "X-Amz-Date", "X-Amz-Security-Token"):
            request.headers.pop(name, None)
        kept = {name: request.headers[name] for name in ("host", "content-type") if name in request.headers}
        signed = self._request(request.method, str(request.url), headers=kept, data=request.read())
        self._signer.add_auth(signed)
        for name in ("Authorization", "X-Amz-Date", "X-Amz-Security-Token"):
            if name in signed.headers:
                request.headers[name] = signed.headers[name]
        return request
