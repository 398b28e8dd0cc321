"""A post by Standard Webhooks: what is signed, what it says, and which receiver gets it."""

from __future__ import annotations

import base64
import json
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from relay import __version__
from relay.feedback.receiver import Receiver, event_body

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
EVENT = {
    "id": "evt_5f0c1b7de8a92f4c31d6e0b7",
    "at": "2026-11-22T11:17:54.118Z",
    "kind": "delivered",
    "source": "esp",
    "message": "01M81FM43AB5F5JTQCGDF8GVFM",
    "recipient": "jürgen@example.net",
    "reason": None,
}


def test_another_implementation_verifies_the_signature() -> None:
    body = event_body(EVENT)
    headers = Receiver("https://app.example.com/", KEY).headers("evt_1", time.time(), body)
    assert Webhook(SECRET).verify(body, headers)["data"] == EVENT
    assert headers["webhook-id"] == "evt_1"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == f"otp-relay/{__version__}"


@pytest.mark.parametrize("changed", ["body", "webhook-id", "webhook-timestamp", "key"])
def test_whatever_is_changed_the_signature_is_wrong(changed: str) -> None:
    body, now = event_body(EVENT), int(time.time())
    key = b"another key" if changed == "key" else KEY
    headers = Receiver("https://app.example.com/", key).headers("evt_1", now, body)
    if changed in headers:
        headers[changed] = {"webhook-id": "evt_2", "webhook-timestamp": str(now + 1)}[changed]
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"esp", b"ESP") if changed == "body" else body, headers)


def test_the_body_is_compact_json_with_the_event_as_the_time_line_has_it() -> None:
    body = event_body(EVENT)
    assert json.loads(body) == {"type": "delivered", "timestamp": EVENT["at"], "data": EVENT}
    assert list(json.loads(body)) == ["type", "timestamp", "data"]
    assert b": " not in body
    assert "jürgen".encode() in body


@pytest.mark.parametrize(
    ("kinds", "lanes", "wanted"),
    [
        (None, None, True),
        ({"delivered", "bounced"}, None, True),
        ({"bounced"}, None, False),
        (None, {"otp"}, True),
        (None, {"bulk"}, False),
        ({"delivered"}, {"bulk"}, False),
        ({"delivered"}, {"bulk", "otp"}, True),
    ],
)
def test_a_receiver_gets_its_kinds_and_lanes(kinds: set[str] | None, lanes: set[str] | None, wanted: bool) -> None:
    receiver = Receiver(
        "https://app.example.com/",
        KEY,
        None if kinds is None else frozenset(kinds),
        None if lanes is None else frozenset(lanes),
    )
    assert receiver.wants("delivered", "otp") is wanted


def test_a_receiver_shows_neither_its_path_nor_its_key() -> None:
    receiver = Receiver("https://app.example.com:8443/hooks/s3cret?token=s3cret", b"s3cret")
    assert "s3cret" not in repr(receiver)
    assert receiver.host == "app.example.com"
