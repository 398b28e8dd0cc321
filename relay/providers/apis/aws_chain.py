"""Where AWS credentials come from as the environment says, and how each source is asked, as values.

Order: keys in the environment, web identity (EKS, OIDC), the container's service (ECS, EKS pod identity), the
instance's metadata service (IMDSv2). Sources: AWS SDKs and Tools Reference Guide, "Standardized credential providers";
STS API Reference, AssumeRoleWithWebIdentity; botocore 1.44, `credentials` and `utils`. Nothing here raises. No reason
quotes an answer or a value of the environment, so each may be logged.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from relay.providers.api import Answer, Credentials
from relay.providers.reading import dig, moment, read_json

MOST_BYTES = 65_536
"""of an answer, and of a token file"""
_LEAST_LIFE_S = 30.0  # what expires sooner counts as expired
_EXTENDED_S = 600.0
_SESSION_TTL_S = "300"
_ECS = "http://169.254.170.2"
_CONTAINER_HOSTS = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost")
_INSTANCE = "http://169.254.169.254"
_INSTANCE_V6 = "http://[fd00:ec2::254]"
_ROLE_PATH = "/latest/meta-data/iam/security-credentials/"
_SUFFIXES = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "us-isof-": "csp.hci.ic.gov",
}
"""partitions other than aws and aws-us-gov, by how their regions begin"""
_REGION = re.compile(r"[a-z0-9]{1,16}(?:-[a-z0-9]{1,16}){1,4}", re.ASCII)
_URL = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]{1,2000}")
_NAME = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)
_VISIBLE = re.compile(r"[\x21-\x7e]{1,20000}")  # 20,000: of a WebIdentityToken; nothing else is longer
_ARN = re.compile(r"arn:[\x21-\x7e]{1,2044}")
_CODES = {
    "ExpiredTokenException": "the web identity token has expired",
    "InvalidIdentityToken": "the web identity token is invalid, or its issuer isn't known to the account",
    "IDPRejectedClaim": "the identity provider rejected the token",
    "IDPCommunicationError": "STS didn't reach the identity provider",
    "AccessDenied": "the role doesn't trust this web identity",
    "ValidationError": "the role's ARN or the session's name is malformed",
    "RegionDisabledException": "STS is disabled in this region",
    "Throttling": "too many requests",
}
"""of STS; a code that isn't here isn't shown"""


class HttpRequest(NamedTuple):
    """What to ask a source. Host and Content-Length are the client's."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def __repr__(self) -> str:
        return "HttpRequest(...)"


class Temporary(NamedTuple):
    """Credentials that expire."""

    credentials: Credentials
    expires_at: float
    """seconds since the epoch"""


class Refusal(NamedTuple):
    """There are no credentials."""

    reason: str
    """one line that may be logged"""


Exchange = Generator[HttpRequest, Answer, Temporary | Refusal]
"""Yields a request, is sent its answer, and returns what came of it."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Keys that stand in the environment. They are never renewed."""

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class WebIdentity:
    """STS exchanges a token of an identity provider for a role's credentials."""

    region: str
    url: str
    role_arn: str
    session_name: str
    token_file: str
    """read anew for each exchange: its writer replaces it before the token expires"""
    name: str = "STS"
    is_local: bool = False

    def exchange(self, token: str, now: float) -> Exchange:
        """`token`: the file's content. The request needs no signature: the token is the proof."""
        token = token.strip()
        if not _VISIBLE.fullmatch(token):
            return Refusal("there is no web identity token in AWS_WEB_IDENTITY_TOKEN_FILE")
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": self.role_arn,
            "RoleSessionName": self.session_name,
            "WebIdentityToken": token,
        }
        headers = (("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),)
        answer = yield HttpRequest("POST", self.url, headers, urlencode(form).encode())
        text = _text(answer)
        if answer.status != 200:
            known = _CODES.get(_element(text or "", "Code"))
            return _failed(self.name, answer, f": {known}" if known else "")
        part = _element(text or "", "Credentials")
        found = [_element(part, one) for one in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")]
        return _temporary(self.name, self.region, found, now)


@dataclass(frozen=True, slots=True)
class Container:
    """The credential service beside a container: ECS, or EKS pod identity."""

    region: str
    url: str = field(repr=False)
    token_file: str = ""
    """read anew for each exchange; '': none"""
    token: str = field(default="", repr=False)
    """of the environment, where there is no file"""
    name: str = "the container's credential service"
    is_local: bool = True

    def exchange(self, token: str, now: float) -> Exchange:
        """`token`: the content of the token file, or `self.token`; '': the service wants none."""
        token = token.strip()
        if self.token_file and not token:
            return Refusal("there is no token in AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
        if not (token.isascii() and token.isprintable()):
            return Refusal("the container's authorization token isn't one line of visible characters")
        headers = [("Accept", "application/json")]
        if token:
            headers.append(("Authorization", token))
        answer = yield HttpRequest("GET", self.url, tuple(headers))
        return _read_json_credentials(self.name, self.region, answer, now)


@dataclass(frozen=True, slots=True)
class Instance:
    """The metadata service of an EC2 instance, version 2: a session token is asked for first."""

    region: str
    url: str
    """without a path of its own"""
    name: str = "the instance's metadata service"
    is_local: bool = True

    def exchange(self, _token: str, now: float) -> Exchange:
        """Three requests: the session, the role's name, the role's credentials."""
        lasts = (("X-aws-ec2-metadata-token-ttl-seconds", _SESSION_TTL_S),)
        answer = yield HttpRequest("PUT", f"{self.url}/latest/api/token", lasts)
        session = (_text(answer) or "").strip()
        if answer.status != 200 or not _VISIBLE.fullmatch(session):
            return _failed(self.name, answer, " to the request for a session")
        headers = (("X-aws-ec2-metadata-token", session),)
        answer = yield HttpRequest("GET", self.url + _ROLE_PATH, headers)
        if answer.status == 404:
            return Refusal("the instance has no role")
        role = (_text(answer) or "").strip().partition("\n")[0].rstrip("\r")
        if answer.status != 200 or not _NAME.fullmatch(role) or role in (".", ".."):
            return _failed(self.name, answer, " to the request for the role's name")
        answer = yield HttpRequest("GET", f"{self.url}{_ROLE_PATH}{role}", headers)
        return _read_json_credentials(self.name, self.region, answer, now, extended_s=_EXTENDED_S)


Source = Fixed | WebIdentity | Container | Instance


def source_of(environ: Mapping[str, str], region: str) -> Source | Refusal:
    """The first source that the environment names; an empty variable counts as absent. `region`: SES's, STS's too.

    A source that is named by halves is refused: the next one would have other rights.
    """
    if not _REGION.fullmatch(region):
        return Refusal("the region isn't a name such as eu-west-1")
    if environ.get("AWS_ACCESS_KEY_ID"):
        return _fixed(environ, region)
    if environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return _web_identity(environ, region)
    if environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") or environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        return _container(environ, region)
    return _instance(environ, region)


def renewal_at(obtained_at: float, expires_at: float) -> float:
    """When to renew: at 80 % of the life, and at least 5 minutes before its end where it is longer than 10."""
    life_s = expires_at - obtained_at
    return obtained_at + min(0.8 * life_s, max(life_s - 300.0, life_s / 2))


def _fixed(environ: Mapping[str, str], region: str) -> Fixed | Refusal:
    key, secret = environ["AWS_ACCESS_KEY_ID"], environ.get("AWS_SECRET_ACCESS_KEY", "")
    token = environ.get("AWS_SESSION_TOKEN", "")
    if not secret:
        return Refusal("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY isn't")
    if not all(map(_VISIBLE.fullmatch, (key, secret, token or "-"))):
        return Refusal("the AWS keys in the environment have characters that no key has")
    return Fixed(_credentials(region, key, secret, token))


def _web_identity(environ: Mapping[str, str], region: str) -> WebIdentity | Refusal:
    role_arn = environ.get("AWS_ROLE_ARN", "")
    if not role_arn:
        return Refusal("AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN isn't")
    if not _ARN.fullmatch(role_arn):
        return Refusal("AWS_ROLE_ARN isn't an ARN")
    session_name = environ.get("AWS_ROLE_SESSION_NAME") or "otp-relay"
    if not _NAME.fullmatch(session_name) or not 2 <= len(session_name) <= 64:
        return Refusal("AWS_ROLE_SESSION_NAME isn't 2 to 64 letters, digits and +=,.@-_")
    suffix = next((one for begin, one in _SUFFIXES.items() if region.startswith(begin)), "amazonaws.com")
    url = environ.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{region}.{suffix}/"
    # The token is a secret as good as a key.
    if not _is_url(url, plain_hosts=("localhost",)):
        return Refusal("AWS_ENDPOINT_URL_STS is neither an https URL nor on this machine")
    return WebIdentity(region, url, role_arn, session_name, environ["AWS_WEB_IDENTITY_TOKEN_FILE"])


def _container(environ: Mapping[str, str], region: str) -> Container | Refusal:
    relative = environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "")
    # Anything but a path would make another host of it.
    if relative and not relative.startswith("/"):
        return Refusal("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI doesn't begin with /")
    url = _ECS + relative if relative else environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    if not _is_url(url, plain_hosts=_CONTAINER_HOSTS):
        return Refusal("the container's credential URL is neither https, nor on this machine, nor that of ECS or EKS")
    token_file = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "")
    token = "" if token_file else environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    return Container(region, url, token_file, token)


def _instance(environ: Mapping[str, str], region: str) -> Instance | Refusal:
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return Refusal("the environment names no AWS credentials, and AWS_EC2_METADATA_DISABLED is true")
    is_v6 = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").lower() == "ipv6"
    url = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or (_INSTANCE_V6 if is_v6 else _INSTANCE)
    if not _is_url(url, plain_hosts=None) or "?" in url:
        return Refusal("AWS_EC2_METADATA_SERVICE_ENDPOINT isn't an http or https URL")
    return Instance(region, url.rstrip("/"))


def _is_url(url: str, *, plain_hosts: tuple[str, ...] | None) -> bool:
    """Whether it is a URL with https, or with http to a loopback address or one of `plain_hosts`; None: any host.

    Only characters of RFC 3986 are let through: clients disagree about others, and so about the host.
    """
    if not _URL.fullmatch(url):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    if parts.scheme == "https" or (parts.scheme == "http" and (plain_hosts is None or host in plain_hosts)):
        return True
    return parts.scheme == "http" and _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _text(answer: Answer) -> str | None:
    """The body as text; None: it is too long, or no UTF-8."""
    if answer.body is None or len(answer.body) > MOST_BYTES:
        return None
    try:
        return answer.body.decode()
    except UnicodeDecodeError:
        return None


def _element(xml: str, name: str) -> str:
    """What stands in the only element of that name; '': there is none, or more than one.

    It is no XML parser, so it expands nothing. STS sends neither DOCTYPE nor comment nor CDATA, which `<!` begins.
    """
    if "<!" in xml or xml.count(f"<{name}>") != 1:
        return ""
    text, closing, _ = xml.partition(f"<{name}>")[2].partition(f"</{name}>")
    return text.strip() if closing else ""


def _read_json_credentials(
    name: str, region: str, answer: Answer, now: float, extended_s: float = 0.0
) -> Temporary | Refusal:
    """ECS, EKS and IMDS answer alike; IMDS has errors inside of a 200, with another `Code` than Success."""
    text = _text(answer)
    if answer.status != 200 or text is None:
        return _failed(name, answer)
    value = read_json(text)
    if dig(value, "Code") not in (None, "Success"):
        return Refusal(f"{name} has no credentials for the role; is it trusted to be assumed here?")
    found = [dig(value, one) for one in ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")]
    return _temporary(name, region, found, now, extended_s)


def _temporary(
    name: str, region: str, found: Sequence[object], now: float, extended_s: float = 0.0
) -> Temporary | Refusal:
    """`found`: key id, secret, session token, end. `extended_s`: the life of those that have expired already.

    While EC2 can't renew them, the metadata service answers with expired credentials that AWS goes on accepting.
    """
    key, secret, token, end = found
    expires_at = moment(end) if isinstance(end, str) else None
    texts = [one for one in (key, secret, token) if isinstance(one, str) and _VISIBLE.fullmatch(one)]
    if len(texts) < 3 or any("<" in one or "&" in one for one in texts) or expires_at is None:
        return Refusal(f"{name} sent an answer that can't be read")
    if expires_at < now + _LEAST_LIFE_S:
        if not extended_s:
            return Refusal(f"{name} sent credentials that have expired; is this machine's clock right?")
        expires_at = now + extended_s
    return Temporary(_credentials(region, *texts), expires_at)


def _credentials(region: str, key: str, secret: str, token: str) -> Credentials:
    return Credentials(access_key_id=key, secret_access_key=secret, session_token=token, region=region)


def _failed(name: str, answer: Answer, more: str = "") -> Refusal:
    fault = "sent an answer that can't be read" if answer.status == 200 else f"answered HTTP {answer.status}{more}"
    return Refusal(f"{name} {fault}")
