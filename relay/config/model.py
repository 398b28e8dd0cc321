"""The configuration as frozen, typed values: one class for each YAML mapping, one field for each key.

Field names carry their unit; the YAML key is the alias (`expires` in the file is `expires_s` here). Defaults stand
here, but for those that depend on other keys (`defaults`), the store's path and HTTP's address (`parse`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr

from relay.config.access import ApiAccess, OAuth2
from relay.config.errors import Places
from relay.config.feedback import EventReceiver, Objective, Webhook, Webhooks
from relay.config.fields import (
    Address,
    Budget,
    Count,
    Depth,
    DomainName,
    Duration,
    DurationOrZero,
    FilePath,
    Flag,
    HeaderName,
    MailAddress,
    Network,
    OneOrMany,
    OneOrManyMappings,
    Port,
    Priority,
    Rate,
    RateLimit,
    Section,
    Size,
    StorePath,
    WarmSessions,
    Workers,
)
from relay.config.network import TcpAddress, parse_address
from relay.config.parse import DEFAULT_HTTP, DEFAULT_STORE

EXPRESS_WITHIN_S = 3600.0
"""a lane without `express` is express where its mail expires within this time"""

PINNED_RULE = "listener"
"""the rule's name in the log for mail whose lane is pinned by its listener"""

API_RULE = "api"
"""the rule's name in the log for mail whose lane is named by a request to /api/send"""


COPY_RULE = "copy"
"""the rule's name in the log for copies that go to `copy_to`"""


class Listener(Section):
    """Where apps submit mail."""

    address: Address
    tls: Literal["none", "starttls", "implicit"] = "none"
    cert_file: FilePath | None = None
    key_file: FilePath | None = None
    auth: Literal["none", "any", "required"] = "none"
    users_file: FilePath | None = None
    lane: str | None = None
    senders: OneOrMany[str] | None = None
    """patterns of the envelope senders and From addresses that may send here; None: all"""
    allow: OneOrMany[Network] = ()
    proxy_protocol: OneOrMany[Network] = ()


class Http(Section):
    """Metrics, health, API, console."""

    address: Address = parse_address(DEFAULT_HTTP, None)
    token: SecretStr | None = None
    """may do everything; from `token`, or read from `token_file` at loading, as the tokens below"""
    token_file: FilePath | None = None
    read_token: SecretStr | None = None
    """may read everything, and change nothing"""
    read_token_file: FilePath | None = None
    send_token: SecretStr | None = None
    """may send mail and nothing else"""
    send_token_file: FilePath | None = None
    send_address: Address | None = None
    """a listener of its own that takes mail and does nothing else"""
    senders: OneOrMany[str] | None = None
    """patterns of the envelope senders and From addresses that may send by HTTP; None: all"""

    @property
    def sending(self) -> Listener:
        """What rules see as the listener of mail that comes by HTTP."""
        return Listener(address=self.send_address or self.address, senders=self.senders)


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
    via: Literal["smtp", "api", "auto"] = "smtp"
    """`auto`: the API for mail that it carries unchanged, SMTP for the rest"""
    host: str = ""
    """of the SMTP server; '' with `via: api` only"""
    port: Port = 587
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    ca_file: FilePath | None = None
    allow_plaintext: Flag = False
    proxy: SecretStr | None = None
    """URL of a SOCKS or HTTP proxy that all connections go by"""
    auth: Literal["password", "xoauth2"] = "password"
    username: str | None = Field(None, repr=False)
    """may be a secret: Postmark's server token is user name and password"""
    username_file: FilePath | None = None
    password: SecretStr | None = None
    """from `password`, or read from `password_file` at loading"""
    password_file: FilePath | None = None
    oauth2: OAuth2 | None = None
    api: ApiAccess = ApiAccess()
    sessions: Sessions = Sessions()
    rate: Rate | None = None
    """messages a second"""
    recipients: Count = 100
    """recipients in one transaction"""
    unsigned_headers: OneOrMany[HeaderName] = ()
    """headers (lower case) that this upstream rewrites, so a DKIM signature must not cover them"""
    headers: dict[str, str | None] = Field(default_factory=dict)
    """fields that are set on what goes out here, before it is signed; None removes one"""
    webhook: Webhook | None = None


class LaneLimits(Section):
    """How much mail a recipient, a client or a sender may have; each list holds `N/period` entries."""

    per_recipient: OneOrMany[RateLimit] = ()
    per_client: OneOrMany[RateLimit] = ()
    per_sender: OneOrMany[RateLimit] = ()
    resend_after_s: OneOrMany[Duration] = Field((), alias="resend_after")
    """the least time between two messages of one rule to one recipient: behind the first, the second, ..."""
    fold_tags: Flag = False
    """`a+b@example.com` counts as `a@example.com`"""
    action: Literal["reject", "delay", "demote", "log"] = "reject"
    express_budget: Budget | None = None
    """in an express lane: what a sender has beyond it goes to the default lane"""
    look_alikes: RateLimit | None = None
    """in an express lane: what has the same text for more recipients, and no code, goes to the default lane"""
    list_unsubscribe: Literal["demote", "allow"] = "demote"
    """in an express lane: whether mail with a List-Unsubscribe field goes to the default lane"""


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
    suppress: Literal["none", "hard", "all"] = "hard"
    """which suppressions count: `hard`: permanent bounces; `all`: complaints and unsubscribes, too"""
    suppress_for_s: Duration | None = Field(None, alias="suppress_for")
    """how long after it a permanent bounce counts; None: until it is removed"""
    objective: Objective | None = None
    prefer: Literal["order", "fastest"] = "order"
    copy_to: MailAddress | None = None
    """an archive that gets a copy of each message"""
    copy_codes: Flag = False
    """in an express lane: the copies are whole; without it codes are masked"""
    lint: Literal["none", "report"] = "none"
    """`report`: what lint finds in its messages is counted"""
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
    user: OneOrMany[str] | None = None
    """of AUTH, where the listener verifies it; mail without one never matches"""
    content: Literal["otp", "other"] | None = None
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
    format: Literal["logfmt", "json"] = "logfmt"
    """of the lines on stderr"""


class Config(Section):
    """The whole file."""

    listen: tuple[Listener, ...] = Field((Listener(address=TcpAddress("127.0.0.1", 2525)),), min_length=1)
    http: Http = Http()
    webhooks: Webhooks = Webhooks()
    store: StorePath = DEFAULT_STORE
    store_key_file: FilePath | None = None
    hostname: str
    upstreams: dict[str, Upstream] = Field(min_length=1)
    lanes: dict[str, Lane] = Field(min_length=1)
    rules: tuple[Rule, ...] = ()
    default_lane: str
    dkim: tuple[DkimDomain, ...] = ()
    events: OneOrManyMappings[EventReceiver] = ()
    redirect: MailAddress | None = None
    """for staging: the address that all mail goes to instead of its recipients"""
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
    certificate_ends: Mapping[Path, float] = field(default_factory=dict)
    """of listeners, by `cert_file`: seconds since the epoch"""
    outline: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """what an operator may be shown of it: see `config.outline`"""


IpNetwork = IPv4Network | IPv6Network
