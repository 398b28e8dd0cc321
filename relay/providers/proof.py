"""What proves a webhook request: passwords, tokens and MACs. Each comparison takes constant time.

Base64 is compared as text, not as bytes: some characters of it may change without changing the bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

from relay.providers.webhook import Posted, Refused, Terms

SVIX_TOLERANCE_S = 300
"""of the Svix libraries"""


def same(one: str | bytes, other: str | bytes) -> bool:
    """Whether two secrets or MACs are equal. The time that it takes tells nothing but their lengths."""
    return hmac.compare_digest(raw(one), raw(other))


def raw(value: str | bytes) -> bytes:
    """The bytes of a secret or a header, whatever stands in it."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def any_same(presented: str | bytes, expected: Iterable[str | bytes]) -> bool:
    """Whether the value is equal to one of those expected. Each is compared, whichever is right."""
    matches = [same(presented, one) for one in expected]
    return any(matches)


def from_base64(text: str) -> bytes | None:
    """The bytes of a base64 text in its one canonical form; None: it is another."""
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    return data if base64.b64encode(data).decode() == text else None


def hex_mac(key: str, data: bytes) -> str:
    """HMAC-SHA256 as lower-case hex."""
    return hmac.new(raw(key), data, hashlib.sha256).hexdigest()


def check_password(posted: Posted, terms: Terms, switch: str) -> Refused | None:
    """The refusal of a request without one of the passwords or tokens of `terms`; None: it has one.

    A secret with a colon is `user:password` (basic authentication), any other a bearer token. `switch`: where it is
    set at the ESP.
    """
    scheme, _, value = posted.headers.get("authorization", "").partition(" ")
    value = value.strip()
    known = [secret for secret in terms.secrets if secret]
    right = False
    if scheme.lower() == "basic":
        presented = from_base64(value)
        right = presented is not None and any_same(presented, [secret for secret in known if ":" in secret])
    elif scheme.lower() == "bearer":
        right = any_same(value, [secret for secret in known if ":" not in secret])
    if right:
        return None
    if not scheme:
        return Refused(401, f"request without a password: {switch}")
    return Refused(401, f"the request's password isn't webhook.secret: {switch}")


def check_svix(posted: Posted, terms: Terms, switch: str) -> Refused | None:
    """The refusal of a request without a signature by Standard Webhooks or Svix; None: it has one and is fresh."""
    identity, stamp, signatures = (
        posted.headers.get(f"svix-{name}", posted.headers.get(f"webhook-{name}", ""))
        for name in ("id", "timestamp", "signature")
    )
    if not (identity and stamp and signatures):
        return Refused(401, f"unsigned request: {switch}")
    signed = raw(f"{identity}.{stamp}.") + posted.body
    macs = [mac for secret in terms.secrets if (mac := _svix_mac(secret, signed)) is not None]
    # Eight signatures are four times what one rotation needs.
    presented = [one.removeprefix("v1,") for one in signatures.split(" ", 8)[:8] if one.startswith("v1,")]
    matches = [any_same(one, macs) for one in presented]
    if not any(matches):
        return Refused(401, f"the signature doesn't match webhook.secret: {switch}")
    if not fresh(stamp, terms.now, SVIX_TOLERANCE_S):
        return Refused(401, "the request is older or newer than 5 minutes: check this machine's clock")
    return None


def _svix_mac(secret: str, signed: bytes) -> str | None:
    """The MAC under a `whsec_` secret, in base64. None: the secret is none."""
    try:
        encoded = secret.removeprefix("whsec_").rstrip("=")
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (ValueError, binascii.Error):
        return None
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() if key else None


def fresh(stamp: str, now: float, tolerance_s: float) -> bool:
    """Whether a time in decimal digits is within the tolerance, before or after."""
    return stamp.isascii() and stamp.isdigit() and len(stamp) <= 12 and abs(now - int(stamp)) <= tolerance_s
