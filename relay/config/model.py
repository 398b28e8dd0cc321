"""The configuration as frozen, typed values: one class for each YAML mapping, one field for each key.

Field names carry their unit; the YAML key is the alias (`expires` in the file is `expires_s` here). Defaults stand
here, but for those that depend on other keys (`defaults`), the store's path and HTTP's address (`parse`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from relay.config.errors import Places
from relay.config.network import AnyAddress, TcpAddress, parse_address, parse_network
from relay.config.parse import (
    DEFAULT_HTTP,
    DEFAULT_STORE,
    parse_duration,
    parse_duration_or_zero,
    parse_flag,
    parse_header_name,
    parse_path,
    parse_rate,
    parse_size,
    parse_store,
    parse_warm,
    parse_workers,
    whole,
)
from relay.config.rate_limit import CountPer, parse_rate_limit

EXPRESS_WITHIN_S = 3600.0
"""a lane without `express` is express where its mail expires within this time"""

PINNED_RULE = "listener"
"""the rule's name in the log for mail whose lane is pinned by its listener"""


_T = TypeVar("_T")


def _as_tuple(value: Any) -> Any:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _as_tuple_of_mappings(value: Any) -> Any:
    return (value,) if isinstance(value, dict) else value


OneOrMany = Annotated[tuple[_T, ...], BeforeValidator(_as_tuple)]
"""One value or a list of them, as a tuple."""
OneOrManyMappings = Annotated[tuple[_T, ...], BeforeValidator(_as_tuple_of_mappings)]
"""One mapping or a list of them, as a tuple."""

# How the file writes the values of fields: see `parse`, `network` and `rate_limit`.

Duration = Annotated[float, BeforeValidator(parse_duration)]
"""seconds, more than 0"""
DurationOrZero = Annotated[float, BeforeValidator(parse_duration_or_zero)]
"""seconds"""
Size = Annotated[int, BeforeValidator(parse_size)]
"""bytes"""
Rate = Annotated[float, BeforeValidator(parse_rate)]
"""a second"""
RateLimit = Annotated[CountPer, BeforeValidator(parse_rate_limit)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(parse_network)]
Address = Annotated[AnyAddress, BeforeValidator(parse_address)]
Count = Annotated[int, BeforeValidator(whole(1, 10**9 - 1, "a number of at least 1"))]
WarmSessions = Annotated[int | Literal["auto"], BeforeValidator(parse_warm)]
Depth = Annotated[int, BeforeValidator(whole(1, 8, "a number from 1 to 8"))]
Port = Annotated[int, BeforeValidator(whole(1, 65535, "a port number from 1 to 65535"))]
Priority = Annotated[int, BeforeValidator(whole(-9, 9, "a priority from -9 to 9"))]
Workers = Annotated[int | Literal["auto"], BeforeValidator(parse_workers)]
Flag = Annotated[bool, BeforeValidator(parse_flag)]
HeaderName = Annotated[str, BeforeValidator(parse_header_name)]
DomainName = Annotated[str, AfterValidator(str.lower)]
FilePath = Annotated[Path, BeforeValidator(parse_path)]
StorePath = Annotated[Path, BeforeValidator(parse_store)]


class Section(BaseModel):
    """A mapping of the file. Unknown keys are refused, values keep their type, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Listener(Section):
    """Where apps submit mail."""

    address: Address
    tls: Literal["none", "starttls", "implicit"] = "none"
    cert_file: FilePath | None = None
    key_file: FilePath | None = None
    auth: Literal["none", "any", "required"] = "none"
    users_file: FilePath | None = None
    lane: str | None = None
    allow: OneOrMany[Network] = ()
    proxy_protocol: OneOrMany[Network] = ()


class Http(Section):
    """Metrics, health, API, console."""

    address: Address = parse_address(DEFAULT_HTTP, None)
    token: SecretStr | None = None


class Sessions(Section):
    """The number of connections to an upstream, and how long each is kept."""

    warm: WarmSessions = "auto"
    """sessions that each express lane keeps open, with TLS and AUTH done; `auto`: as many as recent bursts needed"""
    max: Count = 10
    """open sessions to this upstream, over all lanes"""
    idle_s: Duration = Field(45.0, alias="idle")
    messages: Count = 100
    """messages that one session carries before it is replaced"""
    depth: Depth = 4
    """messages of an express lane that one session has under way at once, where the upstream allows it; 1: one after
    the other"""

    @property
    def least(self) -> int:
        """The sessions that one express lane needs."""
        return max(1, self.warm) if isinstance(self.warm, int) else 1


class Upstream(Section):
    """A smarthost. `host`, `port`, `tls`, `username` may come from the preset."""

    preset: str | None = None
    host: str
    port: Port = 587
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    ca_file: FilePath | None = None
    allow_plaintext: Flag = False
    username: str | None = Field(None, repr=False)
    """may be a secret: Postmark's server token is user name and password"""
    password: SecretStr | None = None
    """from `password`, or read from `password_file` at loading"""
    password_file: FilePath | None = None
    sessions: Sessions = Sessions()
    rate: Rate | None = None
    """messages a second"""
    recipients: Count = 100
    """recipients in one transaction"""
    unsigned_headers: OneOrMany[HeaderName] = ()
    """headers (lower case) that this upstream rewrites, so a DKIM signature must not cover them"""


class LaneLimits(Section):
    """Policy limits; each list holds `N/period` entries."""

    per_recipient: OneOrMany[RateLimit] = ()
    per_client: OneOrMany[RateLimit] = ()
    resend_after_s: Duration | None = Field(None, alias="resend_after")


class Lane(Section):
    """A class of service. `defaults` fills in the express or the bulk defaults."""

    upstreams: OneOrMany[str]
    express: Flag
    retry_s: OneOrMany[Duration] = Field(alias="retry")
    expires_s: Duration = Field(alias="expires")
    hedge_s: Duration | None = Field(None, alias="hedge")
    attempt_s: Duration = Field(alias="attempt")
    final_s: Duration = Field(alias="final")
    on_ambiguous: Literal["resend", "hold"] = "resend"
    supersede: Flag = False
    limits: LaneLimits = LaneLimits()
    rate: Rate | None = None
    """messages a second"""
    concurrency: Count | None = None
    """messages that are being sent at once; default: the sum of its upstreams' `sessions.max`"""


class Match(Section):
    """The conditions of a rule. All given ones must hold; of a list, any entry may match.

    A pattern is a glob (case-insensitive) or `/regex/` with an optional `i` flag: see `patterns`.
    """

    header: dict[str, OneOrMany[str]] | None = None
    sender: OneOrMany[str] | None = None
    recipient: OneOrMany[str] | None = None
    client: OneOrMany[Network] | None = None
    subject: OneOrMany[str] | None = None
    listener: OneOrMany[str] | None = None
    content: Literal["otp"] | None = None
    priority: Priority | None = None


class Rule(Section):
    """A rule. The first one that matches names the lane."""

    name: str
    match: Match
    lane: str
    upstreams: OneOrMany[str] | None = None
    expires_s: Duration | None = Field(None, alias="expires")
    """a shorter life than the lane's"""


class DkimKey(Section):
    """A private key and its selector in DNS."""

    selector: str
    key_file: FilePath


class DkimDomain(Section):
    """Mail whose From domain is this or below it is signed by every key. The longest match wins."""

    domain: DomainName
    keys: OneOrManyMappings[DkimKey] = Field(min_length=1)


class Limits(Section):
    """Limits of one message, one client, and all clients together."""

    message_size_bytes: Size = Field(30_000_000, alias="message_size")
    recipients: Count = 500
    connections: Count = 500
    connections_per_client: Count | None = None
    """default: none for loopback and unix sockets, 100 for other clients"""
    memory_bytes: Size = Field(64_000_000, alias="memory")
    """for contents that are coming in, over all connections; others are written to a file"""
    command_timeout_s: Duration = Field(300.0, alias="command_timeout")
    data_timeout_s: Duration = Field(300.0, alias="data_timeout")


class Queue(Section):
    """When the relay refuses mail (452), so that the disk doesn't fill up."""

    max_messages: Count | None = None
    max_bytes: Size | None = None
    min_free_bytes: Size = Field(64_000_000, alias="min_free")


class Log(Section):
    """How long finished messages are kept, and how much of their addresses."""

    keep_s: Duration = Field(30 * 86400.0, alias="keep")
    addresses: Literal["full", "hashed"] = "full"


class Config(Section):
    """The whole file."""

    listen: tuple[Listener, ...] = Field((Listener(address=TcpAddress("127.0.0.1", 2525)),), min_length=1)
    http: Http = Http()
    store: StorePath = DEFAULT_STORE
    store_key_file: FilePath | None = None
    hostname: str
    upstreams: dict[str, Upstream] = Field(min_length=1)
    lanes: dict[str, Lane] = Field(min_length=1)
    rules: tuple[Rule, ...] = ()
    default_lane: str
    dkim: tuple[DkimDomain, ...] = ()
    limits: Limits = Limits()
    queue: Queue = Queue()
    log: Log = Log()
    shutdown_s: DurationOrZero = Field(20.0, alias="shutdown")
    workers: Workers = "auto"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that passed every check."""

    config: Config
    path: Path
    notes: tuple[str, ...]
    """hints for the operator, though nothing is wrong: `relay.yaml:12: lanes.otp.limits: has no effect yet`"""
    dkim_pems: Mapping[Path, bytes] = field(default_factory=dict, repr=False)
    """the private keys of `dkim` by `key_file`, as read at loading (LF line ends)"""
    store_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """the keys in `store_key_file`, 32 bytes each: the first encrypts, all decrypt"""
    places: Places = field(default=Places(Path()), repr=False)
    """where the values are in the file"""


IpNetwork = IPv4Network | IPv6Network
