"""What is set up, as values: the answers to `otp-relay init`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from relay.config.network import TcpAddress, UnixAddress, is_loopback, parse_address
from relay.providers.base import Preset
from relay.providers.registry import find_preset

Runner = Literal["systemd", "compose", "plain"]
RUNNERS: tuple[Runner, ...] = ("systemd", "compose", "plain")
OTHER = "other"
"""in the place of a preset: a server of one's own"""
LOCAL = "local"
"""in the place of a preset: a mail catcher on this machine, such as Mailpit"""
LOCAL_PORT = 1025
PLACEHOLDER = "REPLACE-ME"
"""where a value is still to be filled in"""
PRIVATE_NETWORKS = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
"""RFC 1918, and this machine"""
SELECTORS = (("s1", False), ("e1", True))
"""of the DKIM keys, each with whether it is Ed25519"""


@dataclass(frozen=True, slots=True)
class Account:
    """An upstream and how the relay logs in there."""

    name: str
    """in the configuration"""
    preset: str
    """a preset's name, OTHER or LOCAL"""
    host: str | None = None
    """where the preset names none"""
    username: str | None = None
    secret: str | None = field(default=None, repr=False)
    """None: to be filled in, where one is needed"""
    oauth2: Mapping[str, str] = field(default_factory=dict)
    """`tenant` and `client_id`, where the provider wants an access token"""

    @property
    def known(self) -> Preset | None:
        return find_preset(self.preset)

    @property
    def has_secret(self) -> bool:
        return self.preset != LOCAL

    @property
    def with_token(self) -> bool:
        """Whether it logs in with an access token of an application (OAuth 2)."""
        sample = {} if self.known is None else self.known.sample
        return "client_secret" in sample.get("oauth2", {})

    @property
    def needs_host(self) -> str | None:
        """The form of the server's name, where it has to be given."""
        if self.preset == OTHER:
            return "smtp.example.com"
        return None if self.known is None else self.known.needs.get("host", "").partition(",")[0] or None

    @property
    def needs_username(self) -> str | None:
        """What to write as the user name; None: it needs none."""
        if self.preset == OTHER:
            return "the user name"
        return None if self.known is None else self.known.needs.get("username")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is to be written."""

    accounts: tuple[Account, ...]
    """one or two, in order of preference"""
    domain: str
    """of From, in ASCII"""
    listen: str
    """where apps submit mail; with `compose` as the host sees it"""
    runner: Runner
    senders: tuple[str, ...] = ()
    """patterns of From addresses of codes; none: the detector alone finds them"""
    allow: tuple[str, ...] = ()

    @property
    def listens_privately(self) -> bool:
        """Whether only this machine can reach the listener; in a container it never is so."""
        if self.runner == "compose":
            return False
        address = parse_address(self.listen, None)
        return isinstance(address, UnixAddress) or (isinstance(address, TcpAddress) and is_loopback(address.host))

    @property
    def unfilled(self) -> tuple[str, ...]:
        """What the operator has to fill in before mail can go out, one line each."""
        found = []
        for one in self.accounts:
            if one.has_secret and one.secret is None:
                found.append(f"secrets/{one.name}: the password, in one line")
            if one.needs_username is not None and one.username is None:
                found.append(f"relay.yaml: upstreams.{one.name}.username: {one.needs_username}")
            if one.needs_host is not None and one.host is None:
                found.append(f"relay.yaml: upstreams.{one.name}.host: {one.needs_host}")
            if one.with_token:
                names = {"tenant": "oauth2.token_url: TENANT", "client_id": "oauth2.client_id"}
                found += [
                    f"relay.yaml: upstreams.{one.name}.{place}"
                    for name, place in names.items()
                    if name not in one.oauth2
                ]
        return tuple(found)
