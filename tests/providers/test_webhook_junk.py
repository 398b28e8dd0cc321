"""Whatever a proved request holds, each webhook answers with a verdict whose values are bounded and printable."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.providers.registry import provider_named
from relay.providers.webhook import Accepted, EspEvent, NeedsCertificate, Refused, Verdict
from tests.fuzz.cost import assert_linear
from tests.providers.kinds import TABLES
from tests.providers.signers import NOW, SIGNERS, Signed, sns_message
from tests.providers.test_webhook_samples import webhook

ESPS = pytest.mark.parametrize("esp", SIGNERS)
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
SOME = settings(max_examples=EXAMPLES or 40, deadline=None, suppress_health_check=list(HealthCheck))
BATCHES = ["sendgrid", "brevo", "sparkpost", "mailjet", "mandrill", "postmark"]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(st.characters(codec=None), max_size=30),
    st.sampled_from(
        [
            "",
            "\ud800",
            "\x00",
            "a@b",
            "x" * 400 + "@b",
            "1e400",
            "9" * 30,
            "2026-13-45T99:99:99Z",
            "0001-01-01T00:00:00+14:00",
        ]
    ),
    st.sampled_from([-1, 0, 1e308, 10**19, 1772366405, 1772366405118]),
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


def pack(esp: str, event: Any) -> Signed:
    """A proved request around any event, in the ESP's packing."""
    if esp == "ses":
        body = sns_message(json.dumps(event))
    elif esp == "mandrill":
        body = urlencode({"mandrill_events": json.dumps([event])}).encode()
    elif esp == "mailgun":
        body = json.dumps({"event-data": event}).encode()
    elif esp == "sparkpost":
        body = json.dumps([{"msys": {"message_event": event}}]).encode()
    elif esp == "sendgrid":
        body = json.dumps([event]).encode()
    else:
        body = json.dumps(event).encode()
    return SIGNERS[esp](body, {}, NOW)


def plain_events(esp: str) -> list[Any]:
    """An event of each kind, unpacked."""
    plain = []
    for _, body, *_ in TABLES[esp]:
        event = json.loads(json.loads(body)["Message"]) if esp == "ses" else body
        if esp == "mandrill":
            event = json.loads(dict([json_pair(body)])["mandrill_events"])[0]
        elif esp == "sendgrid":
            event = body[0]
        elif esp == "sparkpost":
            event = body[0]["msys"]["message_event"]
        elif esp == "mailgun":
            if isinstance(body, bytes):
                continue
            event = body["event-data"]
        plain.append(event)
    return plain


def json_pair(body: bytes) -> tuple[str, str]:
    return parse_qsl(body.decode())[0]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to each value inside of an event."""
    found = [path]
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        found += places(inner, (*path, step))
    return found


def replaced(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """The event with another value at the path."""
    if not path:
        return other
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], other)
    return copy


def hold(verdict: Verdict) -> None:
    """What the callers rely on."""
    assert isinstance(verdict, Accepted | Refused | NeedsCertificate)
    for event in verdict.events if isinstance(verdict, Accepted) else ():
        hold_event(event)


def hold_event(event: EspEvent) -> None:
    assert 0 < len(event.key) <= 200
    assert event.recipient is None or "@" in event.recipient
    for text, limit in [
        (event.key, 200),
        (event.recipient, 320),
        (event.reason, 500),
        (event.relay_id, 200),
        (event.esp_id, 200),
        (event.message_id, 202),
        (event.status, 11),
    ]:
        if text is not None:
            assert 0 < len(text) <= limit
            assert text.encode().decode().splitlines() == [text]
    assert event.at is None or 0 < event.at < 1e11
    assert event.permanent in (None, True, False)
    assert event.suppress != "bounce" or event.permanent or event.kind == "other"


@ESPS
def test_junk_in_any_field_is_an_event_of_little_use(esp: str) -> None:
    events = plain_events(esp)

    @SOME
    @given(st.data())
    def try_one(data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(events))
        path = data.draw(st.sampled_from(places(event)))
        hold(webhook(esp)(*pack(esp, replaced(event, path, data.draw(JUNK)))))

    try_one()


@ESPS
@settings(SOME, max_examples=EXAMPLES or 20)
@given(body=st.one_of(st.binary(max_size=200), JUNK.map(lambda value: json.dumps(value).encode())))
def test_junk_without_a_proof_is_refused(esp: str, body: bytes) -> None:
    _, terms = pack(esp, {})
    verdict = webhook(esp)(
        pack(esp, {}).posted._replace(body=body, headers={"content-type": "application/json"}), terms
    )
    assert isinstance(verdict, Refused)


@pytest.mark.parametrize("esp", BATCHES)
def test_a_bad_event_in_a_batch_leaves_the_others_alone(esp: str) -> None:
    good = [event for _, body, kind, *_ in TABLES[esp] if kind == "bounced" for event in unpacked(esp, body)][:1]
    batch = [None, 7, [], {}, "x", *good, {"event": []}]
    body = json.dumps(batch).encode()
    if esp == "mandrill":
        body = urlencode({"mandrill_events": body.decode()}).encode()
    verdict = webhook(esp)(*SIGNERS[esp](body, {}, NOW))
    assert isinstance(verdict, Accepted)
    assert [event.kind for event in verdict.events] == ["other"] * 5 + ["bounced", "other"]


def unpacked(esp: str, body: Any) -> list[Any]:
    if esp == "mandrill":
        return list(json.loads(json_pair(body)[1]))
    return body if isinstance(body, list) else [body]


@ESPS
@pytest.mark.parametrize(
    "event",
    [
        b'{"a":' * 100_000,
        b"[" * 500_000,
        b'{"event":"x","event":"open","email":"a@b","email":7}',
        b'{"timestamp":' + b"9" * 100_000 + b"}",
        b'{"timestamp":NaN,"ts":-Infinity,"time":1e999}',
        b'{"email":"' + b"a" * 1_000_000 + b'@example.org"}',
        b'{"reason":"' + b"5.1.1 " * 100_000 + b'"}',
        b'{"email":"\\ud800@\\udfff.example"}',
        b'{"X-Mailin-custom":"' + b"a:b|" * 200_000 + b'"}',
        b'{"to":"' + b"<" * 500_000 + b'"}',
    ],
    ids=lambda event: repr(event[:30]),
)
def test_deep_long_and_odd_values_are_answered(esp: str, event: bytes) -> None:
    packs = {
        "sendgrid": b"[%b]",
        "sparkpost": b'[{"msys":{"x":%b}}]',
        "mailgun": b'{"signature":{},"event-data":%b}',
        "resend": b'{"type":"email.bounced","data":%b}',
    }
    body = packs.get(esp, b"%b") % event
    if esp == "ses":
        body = sns_message(body.decode())
    elif esp == "mandrill":
        body = urlencode({"mandrill_events": b"[%b]" % event}).encode()
    elif esp == "mailgun":
        assert isinstance(webhook(esp)(pack(esp, {}).posted._replace(body=body), pack(esp, {}).terms), Refused)
        return
    hold(webhook(esp)(*SIGNERS[esp](body, {}, NOW)))


GROWING: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "events": ("mailjet", lambda size: b"[" + b",".join([b'{"event":"open"}'] * (size // 20)) + b"]"),
    "statuses": ("brevo", lambda size: b'{"event":"hard_bounce","reason":"' + b"5.1.1.1 " * (size // 8) + b'"}'),
    "pairs": ("brevo", lambda size: b'{"event":"click","X-Mailin-custom":"' + b"a:b|" * (size // 4) + b'"}'),
    "brackets": ("postmark", lambda size: b'{"RecordType":"Open","Recipient":"' + b"<" * size + b'"}'),
    "recipients": (
        "resend",
        lambda size: b'{"data":{"to":["' + b'","'.join([b"a" * 2_000] * (size // 2_000)) + b'"]}}',
    ),
    "metadata": ("sparkpost", lambda size: b'[{"msys":{"x":{"rcpt_meta":[' + b"{}," * (size // 3) + b"{}]}}}]"),
}


@pytest.mark.parametrize("shape", GROWING)
def test_time_is_in_proportion_to_size(shape: str) -> None:
    esp, made = GROWING[shape]
    signed = functools.cache(lambda body: SIGNERS[esp](body, {}, NOW))
    assert_linear(lambda body: webhook(esp)(*signed(body)), made, 100_000)


@pytest.mark.parametrize("esp", BATCHES)
def test_a_batch_may_have_ten_thousand_events_and_not_any_number(esp: str) -> None:
    for number, status in [(10_000, 200), (500_000, 400)]:
        body = b"[" + b",".join([b"{}"] * number) + b"]"
        if esp == "mandrill":
            body = b"mandrill_events=" + body
        verdict = webhook(esp)(*SIGNERS[esp](body, {}, NOW))
        if status == 200:
            assert isinstance(verdict, Accepted)
            assert len(verdict.events) == number
        else:
            assert isinstance(verdict, Refused)
            assert verdict.status == status


@ESPS
@SOME
@given(reply=st.one_of(st.text(max_size=300), st.text(alphabet="okqueuedas <@>-01af.", max_size=300)))
def test_an_id_is_read_off_any_reply(esp: str, reply: str) -> None:
    provider = provider_named(esp)
    assert provider is not None
    assert provider.esp_id is not None
    found = provider.esp_id(reply)
    assert found is None or 0 < len(found) <= 400
