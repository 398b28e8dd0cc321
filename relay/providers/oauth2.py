"""OAuth 2 as values: requests for access tokens, and what their answers say. Nothing here knows a socket or a clock.

Grants: client credentials and refresh tokens (RFC 6749), Google's service accounts (RFC 7523), and a person's login
from another device (RFC 8628). Sources: the RFCs; Google's "Using OAuth 2.0 for Server to Server Applications".
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import urlencode

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from relay.providers.api import Answer
from relay.providers.reading import read_json

GOOGLE_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - no password
GOOGLE_MAIL_SCOPE = "https://mail.google.com/"
UNREADABLE_ANSWER = "unreadable answer"
"""the reason where an answer of success has no token in it"""
DEFAULT_LIFE_S = 3600.0
"""of a token whose answer doesn't say; RFC 6749 5.1 lets it out"""
MOST_LIFE_S = 10 * 86_400.0
_JWT_LIFE_S = 3600
"""Google's maximum"""
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ACCESS_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")  # RFC 4954 4: a line of AUTH has at most 12288 bytes, in base64
_REFRESH_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_PERMANENT = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client"),
        *("unsupported_grant_type", "invalid_scope", "access_denied", "expired_token"),
        *("interaction_required", "consent_required", "login_required", "invalid_resource"),
        *("admin_policy_enforced", "org_internal", "deleted_client", "disabled_client"),
    }
)
"""errors that asking again doesn't change: RFC 6749 5.2, RFC 8628 3.5, OpenID Connect, Microsoft, Google"""
_TRANSIENT = frozenset({"server_error", "temporarily_unavailable", "authorization_pending", "slow_down"})
_ASK_AGAIN = frozenset({408, 425, 429})
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER_S = 5.0
"""RFC 8628 3.5: behind a slow_down every interval is so much longer"""
_DEFAULT_INTERVAL_S = 5.0
_MOST_INTERVAL_S = 60.0
_LOGIN_WITHIN_S = 900.0
_MOST_LOGIN_S = 3600.0
_DEVICE_CODE = re.compile(r"[\x21-\x7e]{1,8192}")
_USER_CODE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,62}[\x21-\x7e])?")
_PAGE = re.compile(r"https?://[\x21-\x7e]{1,2000}")

Grant = Literal["client_credentials", "refresh_token", "jwt_bearer"]


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Google's key file of a service account."""

    email: str
    key_id: str
    token_url: str
    pem: str = field(repr=False)
    key: RSAPrivateKey = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where an upstream's tokens come from."""

    grant: Grant
    token_url: str = field(repr=False)
    client_id: str = field(default="", repr=False)
    client_secret: str = field(default="", repr=False)
    scope: str = ""
    subject: str = field(default="", repr=False)
    """`jwt_bearer`: the user that is acted for"""
    service_account: ServiceAccount | None = field(default=None, repr=False)
    """`jwt_bearer`"""
    device_url: str | None = field(default=None, repr=False)
    """of RFC 8628's device authorization endpoint"""


class Form(NamedTuple):
    """A POST of a form. Its body has secrets, its URL has none."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __repr__(self) -> str:
        return "Form(...)"


class Token(NamedTuple):
    """An access token."""

    access_token: str
    expires_at: float
    """seconds since the epoch"""
    refresh_token: str | None
    """the next one; None: the one that was used stays"""

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at})"


class Refused(NamedTuple):
    """There is no token."""

    reason: str
    """an error code of the RFCs such as invalid_grant, `HTTP 500`, or UNREADABLE_ANSWER: never the server's own words,
    which may quote a secret"""
    permanent: bool
    """asking again is of no use before an operator changes something"""


def read_service_account(content: bytes) -> ServiceAccount:
    """Google's key file in JSON. Raises ValueError with what was expected; the text holds nothing of the file."""
    value = read_json(content)
    if not isinstance(value, dict) or value.get("type", "service_account") != "service_account":
        raise ValueError("expected the JSON key file of a Google service account")
    email, pem = value.get("client_email"), value.get("private_key")
    key_id, token_url = value.get("private_key_id") or "", value.get("token_uri") or GOOGLE_TOKEN_URL
    if not all(isinstance(one, str) for one in (email, pem, key_id, token_url)) or not email or not pem:
        raise ValueError("expected client_email and private_key of a Google service account")
    try:
        key = load_pem_private_key(str(pem).encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("its private_key is no RSA key in PEM")  # noqa: TRY004 - the file's fault
    return ServiceAccount(str(email), str(key_id), str(token_url), str(pem), key)


def token_form(settings: Settings, refresh_token: str | None, now: float) -> Form:
    """The request for a token. `refresh_token`: of that grant, the newest. `now`: seconds since the epoch. Raises
    ValueError where the grant's own secret is missing."""
    match settings.grant:
        case "client_credentials":
            fields = {"grant_type": "client_credentials", **_client(settings), "scope": settings.scope}
        case "refresh_token":
            if not refresh_token:
                raise ValueError("there is no refresh token")
            fields = {
                "grant_type": "refresh_token",
                "refresh_token": refresh_token,
                **_client(settings),
                "scope": settings.scope,
            }
        case "jwt_bearer":
            fields = {"grant_type": _JWT_GRANT, "assertion": _assertion(settings, now)}
    return _form(settings.token_url, fields)


def _client(settings: Settings) -> dict[str, str]:
    """The client's own fields. Microsoft and Google document them in the body (RFC 6749 2.3.1 allows it)."""
    return {"client_id": settings.client_id, "client_secret": settings.client_secret}


def _form(url: str, fields: dict[str, str]) -> Form:
    """The fields that aren't empty, as a POST to that URL."""
    headers = (("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json"))
    return Form(url, headers, urlencode({name: value for name, value in fields.items() if value}).encode())


def _assertion(settings: Settings, now: float) -> str:
    """A signed JWT (RFC 7515, RFC 7519) as Google documents it: RS256, an hour long."""
    account = settings.service_account
    if account is None:
        raise ValueError("there is no service account")
    header = {"alg": "RS256", "typ": "JWT"} | ({"kid": account.key_id} if account.key_id else {})
    claims = {
        "iss": account.email,
        "sub": settings.subject,
        "scope": settings.scope or GOOGLE_MAIL_SCOPE,
        "aud": settings.token_url,
        "iat": int(now),
        "exp": int(now) + _JWT_LIFE_S,
    }
    signed = f"{_encoded(header)}.{_encoded({key: value for key, value in claims.items() if value != ''})}"
    signature = account.key.sign(signed.encode(), PKCS1v15(), SHA256())
    return f"{signed}.{_base64url(signature)}"


def _encoded(value: Mapping[str, object]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def read_token(answer: Answer, now: float) -> Token | Refused:
    """What the token endpoint says (RFC 6749 5.1, 5.2). `now`: seconds since the epoch, before the request was sent.
    Never raises."""
    if not 200 <= answer.status < 300:
        return _refusal(answer)
    value = _object_of(answer)
    access_token, kind = _matching(_ACCESS_TOKEN, value.get("access_token")), value.get("token_type", "Bearer")
    given = value.get("refresh_token") or None
    refresh_token = _matching(_REFRESH_TOKEN, given)
    if access_token is None:
        # Some servers answer an error with 200.
        return _refusal(answer) if "error" in value else Refused(UNREADABLE_ANSWER, False)
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return Refused(UNREADABLE_ANSWER, False)
    if given is not None and refresh_token is None:
        return Refused(UNREADABLE_ANSWER, False)  # the next request would use one that is no longer good
    life_s = _seconds(value.get("expires_in"), DEFAULT_LIFE_S)
    return Token(access_token, now + min(max(life_s, 1.0), MOST_LIFE_S), refresh_token)


def _refusal(answer: Answer) -> Refused:
    """The error of an answer that isn't one of success (RFC 6749 5.2)."""
    error = _object_of(answer).get("error")
    if isinstance(error, str) and error in _PERMANENT | _TRANSIENT:
        return Refused(error, error in _PERMANENT and answer.status < 500)
    if 200 <= answer.status < 300:
        return Refused(UNREADABLE_ANSWER, False)
    return Refused(f"HTTP {answer.status}", 300 <= answer.status < 500 and answer.status not in _ASK_AGAIN)


def _object_of(answer: Answer) -> dict[str, object]:
    """The body as a JSON object; an empty one where it is none."""
    value = None if answer.body is None else read_json(answer.body)
    return value if isinstance(value, dict) else {}


def _seconds(value: object, default: float) -> float:
    """A number of seconds, also as text: Microsoft's older endpoint has it so."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return default
    return float(value)


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) is not None else None


class DeviceCode(NamedTuple):
    """A login that waits for a person."""

    device_code: str
    """a secret: it is exchanged for the tokens"""
    user_code: str
    """printable ASCII, for the person to type"""
    verification_url: str
    """printable ASCII, for the person to open"""
    complete_url: str | None
    """the same with the user code in it"""
    expires_at: float
    """seconds since the epoch"""
    interval_s: float
    """between two polls"""

    def __repr__(self) -> str:
        return "DeviceCode(...)"


class Pending(NamedTuple):
    """The person isn't done yet."""

    slow_down: bool
    """the interval grows by SLOWER_S"""


def default_device_url(token_url: str) -> str | None:
    """The device authorization endpoint beside a token endpoint of Microsoft; None: of another server. Google gives no
    token for mail."""
    microsoft = re.fullmatch(r"(https://login\.(?:partner\.)?microsoftonline\.\w+/[^/]+/oauth2/v2\.0)/token", token_url)
    if microsoft is not None:
        return f"{microsoft[1]}/devicecode"
    return None


def device_form(settings: Settings) -> Form:
    """The request that begins a login (RFC 8628 3.1). Raises ValueError without a device URL."""
    if settings.device_url is None:
        raise ValueError("there is no device URL")
    return _form(settings.device_url, {**_client(settings), "scope": settings.scope})


def read_device_code(answer: Answer, now: float) -> DeviceCode | Refused:
    """What the device authorization endpoint says (RFC 8628 3.2). `now`: seconds since the epoch. Never raises."""
    if not 200 <= answer.status < 300:
        return _refusal(answer)
    value = _object_of(answer)
    device_code = _matching(_DEVICE_CODE, value.get("device_code"))
    user_code = _matching(_USER_CODE, value.get("user_code"))
    # Google's is called verification_url.
    page = _matching(_PAGE, value.get("verification_uri")) or _matching(_PAGE, value.get("verification_url"))
    if device_code is None or user_code is None or page is None:
        return _refusal(answer) if "error" in value else Refused(UNREADABLE_ANSWER, False)
    return DeviceCode(
        device_code,
        user_code,
        page,
        _matching(_PAGE, value.get("verification_uri_complete")),
        now + min(max(_seconds(value.get("expires_in"), _LOGIN_WITHIN_S), 1.0), _MOST_LOGIN_S),
        min(max(_seconds(value.get("interval"), _DEFAULT_INTERVAL_S), 1.0), _MOST_INTERVAL_S),
    )


def device_token_form(settings: Settings, device_code: str) -> Form:
    """The request that polls (RFC 8628 3.4)."""
    return _form(settings.token_url, {"grant_type": _DEVICE_GRANT, "device_code": device_code, **_client(settings)})


def read_poll(answer: Answer, now: float) -> Token | Pending | Refused:
    """What a poll says (RFC 8628 3.5). A refusal that is permanent is the login's end. `now`: seconds since the
    epoch. Never raises."""
    found = read_token(answer, now)
    if isinstance(found, Refused) and found.reason in ("authorization_pending", "slow_down"):
        return Pending(found.reason == "slow_down")
    return found
