"""A receiver of events, and a post to it by Standard Webhooks: body, headers, signature. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from relay import __version__
from relay.store.events import receiver_key


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where events are posted to, and which ones."""

    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    """the key that signs"""
    kinds: frozenset[str] | None = None
    """None: all"""
    lanes: frozenset[str] | None = None
    """None: all"""
    ca_file: Path | None = None
    """None: the system's CAs"""

    @property
    def key(self) -> str:
        """What the outbox knows it by."""
        return receiver_key(self.url)

    @property
    def host(self) -> str:
        """What log lines and listings call it: path and query of the URL may hold a credential."""
        return urlsplit(self.url).hostname or ""

    def wants(self, kind: str, lane: str) -> bool:
        """Whether it gets events of this kind and lane."""
        return (self.kinds is None or kind in self.kinds) and (self.lanes is None or lane in self.lanes)

    def headers(self, event_id: str, now: float, body: bytes) -> dict[str, str]:
        """The headers of one attempt at `now` (seconds since the epoch, by the machine's time of day)."""
        timestamp = str(int(now))
        return {
            "webhook-id": event_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(self.secret, event_id, timestamp, body),
            "content-type": "application/json",
            "user-agent": f"otp-relay/{__version__}",
        }


def event_body(event: Mapping[str, object]) -> bytes:
    """The body of a post, the same for every receiver. `event`: as the time line has it in JSON."""
    content = {"type": event["kind"], "timestamp": event["at"], "data": event}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def signature(key: bytes, event_id: str, timestamp: str, body: bytes) -> str:
    """The header's value: `v1,` and the HMAC-SHA256 of id, timestamp and body in base64."""
    mac = hmac.new(key, b".".join((event_id.encode(), timestamp.encode(), body)), hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()
