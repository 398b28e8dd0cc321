"""AWS Signature Version 4 of a request with a body (docs.aws.amazon.com/IAM, "Create a signed request")."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote

from relay.providers.api import Credentials

_ALGORITHM = "AWS4-HMAC-SHA256"


def signed_headers(
    credentials: Credentials, service: str, host: str, path: str, body: bytes, now: float, content_type: str
) -> tuple[tuple[str, str], ...]:
    """The header fields that a POST of `body` needs, Host left out. `path`: as it stands in the request line."""
    moment = datetime.fromtimestamp(now, UTC)
    stamp, day = moment.strftime("%Y%m%dT%H%M%SZ"), moment.strftime("%Y%m%d")
    signed = {"content-type": content_type, "host": host, "x-amz-date": stamp}
    if credentials.session_token:
        signed["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in sorted(signed))
    canonical = f"POST\n{_canonical(path)}\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{day}/{credentials.region}/{service}/aws4_request"
    to_sign = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = _signing_key(credentials.secret_access_key, day, credentials.region, service)
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    fields = [(name, value) for name, value in signed.items() if name != "host"]
    proof = f"{_ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return (*fields, ("authorization", proof))


def _canonical(path: str) -> str:
    """The path that is signed: without dot segments (RFC 3986 5.2.4) and without empty ones. Each segment is encoded
    once more than in the request line. S3 alone does neither."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    closing = "/" if kept and path.endswith("/") else ""
    return quote(f"/{'/'.join(kept)}{closing}", safe="/~")


@lru_cache(maxsize=16)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
