"""Sections of an upstream about how the relay proves itself there: its HTTP API, and OAuth 2."""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from relay.config.fields import FilePath, Section
from relay.config.network import is_host

ApiKind = Literal[
    "postmark",
    "sendgrid",
    "ses",
    "resend",
    "mailgun",
    "brevo",
    "sparkpost",
    "mailjet",
    "mandrill",
    "scaleway",
    "leadpush",
    "graph",
]
Grant = Literal["client_credentials", "refresh_token", "jwt_bearer"]


class ApiAccess(Section):
    """The provider's HTTP API. Each secret may stand in a file."""

    kind: ApiKind | None = None
    """whose API it is; `defaults` fills in the preset's"""
    url: str | None = Field(None, repr=False)
    """scheme, host and port; a path is put before the API's own; `defaults` fills in the provider's"""
    key: SecretStr | None = None
    key_file: FilePath | None = None
    access_key_id: SecretStr | None = None
    """SES; without it, the credentials of the instance, the pod or the web identity"""
    access_key_id_file: FilePath | None = None
    secret_access_key: SecretStr | None = None
    secret_access_key_file: FilePath | None = None
    region: str | None = None
    """SES: default: that of the preset, of the host or of the URL"""


class OAuth2(Section):
    """Where access tokens come from (RFC 6749, RFC 7523, RFC 8628)."""

    grant: Grant = "client_credentials"
    token_url: str | None = Field(None, repr=False)
    device_url: str | None = Field(None, repr=False)
    """for `otp-relay oauth login`"""
    client_id: str | None = None
    client_id_file: FilePath | None = None
    client_secret: SecretStr | None = None
    client_secret_file: FilePath | None = None
    refresh_token: SecretStr | None = None
    """the first one; where it is rotated, the newest is in a file beside the store"""
    refresh_token_file: FilePath | None = None
    service_account_file: FilePath | None = None
    """`jwt_bearer`: Google's key file in JSON"""
    subject: str | None = None
    """`jwt_bearer`: the user that is acted for; default: `username`"""
    scope: str | None = None


class Endpoint(NamedTuple):
    """What an `api.url` names."""

    host: str
    port: int
    is_secure: bool
    prefix: str
    """path before the API's own, '' or as `/proxy`"""

    @property
    def authority(self) -> str:
        """As the Host field has it (RFC 9110 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_secure else 80) else f"{host}:{self.port}"


def endpoint(url: str) -> Endpoint:
    """Raises ValueError with what was expected; the text holds nothing of the URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https") or not is_host(host) or not url.isprintable():
        raise ValueError("expected a URL such as https://api.example.com")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has credentials in it; give the key in api.key or api.key_file")
    if parts.query or parts.fragment:
        raise ValueError("expected a URL without ? and #")
    is_secure = parts.scheme == "https"
    return Endpoint(host, port or (443 if is_secure else 80), is_secure, parts.path.rstrip("/"))
