"""The samples of each ESP's webhooks: what an event means, and whose proof is believed.

`webhooks/` holds them, each with its `source`. They are signed anew where the key of the sample isn't public.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from relay.providers.registry import provider_named
from relay.providers.webhook import Accepted, Posted, Refused, Terms, Webhook
from tests.providers.signers import NOW, SIGNERS, by_password, by_sendgrid, by_sns

FOLDER = Path(__file__).parent / "webhooks"
KINDS = {"accepted": "processed", "suppressed": "other", "subscribed": "other", "ignored": "other"}
NO_MAIL = ("subscription_confirmation",)


class Sample(NamedTuple):
    """A request as the file has it."""

    name: str
    esp: str
    posted: Posted
    now: float
    expects: list[dict[str, Any]]
    signing: dict[str, Any]


def load(path: Path) -> Sample:
    known = json.loads(path.read_text())
    signing = known.get("signing") or {}
    now = signing.get("now", NOW)
    headers = {name.lower(): value for name, value in known["headers"].items()}
    return Sample(
        f"{path.parent.name}/{path.stem}",
        known["esp"],
        Posted(headers, known["body"].encode()),
        datetime.fromisoformat(now).timestamp() if isinstance(now, str) else now,
        known["expects"],
        signing,
    )


def samples(*folders: str) -> list[Any]:
    paths = [path for folder in folders for path in sorted((FOLDER / folder).glob("*.json"))]
    return [pytest.param(sample, id=sample.name) for sample in map(load, paths)]


def webhook(esp: str) -> Webhook:
    provider = provider_named(esp)
    assert provider is not None
    assert provider.webhook is not None
    return provider.webhook


def accepted(sample: Sample) -> Accepted:
    """What the ESP's webhook makes of the sample, signed anew."""
    verdict = webhook(sample.esp)(*SIGNERS[sample.esp](sample.posted.body, sample.posted.headers, sample.now))
    assert isinstance(verdict, Accepted)
    return verdict


ALL = samples(*SIGNERS)


@pytest.mark.parametrize("sample", ALL)
def test_a_sample_has_the_kinds_recipients_and_times_that_it_documents(sample: Sample) -> None:
    expected = [one for one in sample.expects if one["kind"] not in NO_MAIL and sample.name != _UNSUBSCRIBED]
    events = accepted(sample).events
    assert [event.kind for event in events] == [KINDS.get(one["kind"], one["kind"]) for one in expected]
    assert [event.recipient for event in events] == [one["recipient"] for one in expected]
    times = [one["timestamp"] and datetime.fromisoformat(one["timestamp"]).timestamp() for one in expected]
    assert [event.at for event in events] == times
    for event, one in zip(events, expected, strict=True):
        assert "permanent" not in one or event.permanent is one["permanent"]
        assert "status" not in one or event.status == one["status"]
        if (sample.name, event.reason) != ("mandrill/deferral", "451 4.7.1 try later"):
            assert event.reason == (one["reason"] and one["reason"].strip())


_UNSUBSCRIBED = "ses/unsubscribe_confirmation"


@pytest.mark.parametrize("sample", ALL)
def test_a_samples_events_can_be_correlated(sample: Sample) -> None:
    for event, one in zip(accepted(sample).events, sample.expects, strict=False):
        metadata = {**(one.get("metadata") or {})}
        if metadata and sample.esp != "mailjet":
            assert event.relay_id == "otp-01J9Z8Q6T0"
        if (original := one.get("original_message_id")) is not None:
            assert event.message_id == original
        identity = one.get("esp_id_prefix", one["message_id"])
        if identity is not None and sample.esp != "mailjet":
            assert event.esp_id == identity


def test_mailjets_id_is_the_one_of_its_reply() -> None:
    (event,) = accepted(load(FOLDER / "mailjet" / "spam.json")).events
    provider = provider_named("mailjet")
    assert provider is not None
    assert provider.esp_id is not None
    assert event.esp_id == provider.esp_id("OK queued as 5b4de5f5-63d0-44f3-b4bd-a34f222cb8af")


def test_a_subscription_to_a_listed_topic_is_to_be_confirmed() -> None:
    sample = load(FOLDER / "ses" / "subscription_confirmation.json")
    assert accepted(sample).confirm_url == json.loads(sample.posted.body)["SubscribeURL"]


@pytest.mark.parametrize("sample", samples("vectors"))
def test_a_third_partys_vector_verifies_as_it_is(sample: Sample) -> None:
    secret = sample.signing.get("secret") or sample.signing["public_key"]
    verdict = webhook(sample.esp)(sample.posted, Terms(sample.now, secrets=("whsec_AAAA", secret)))
    assert isinstance(verdict, Accepted)
    assert [event.kind for event in verdict.events] == [KINDS.get(one["kind"], one["kind"]) for one in sample.expects]


@pytest.mark.parametrize("sample", samples("negative"))
def test_a_sample_that_must_be_refused_is_refused(sample: Sample) -> None:
    _, terms = SIGNERS[sample.esp](sample.posted.body, sample.posted.headers, sample.now)
    verdict = webhook(sample.esp)(sample.posted, terms)
    assert isinstance(verdict, Refused)
    assert verdict.status == 401


def test_the_line_end_behind_a_sendgrid_batch_is_signed() -> None:
    sample = load(FOLDER / "negative" / "sendgrid_trailing_crlf_stripped.json")
    posted, terms = by_sendgrid(sample.posted.body + b"\r\n", sample.posted.headers, sample.now)
    assert isinstance(webhook("sendgrid")(posted, terms), Accepted)
    verdict = webhook("sendgrid")(posted._replace(body=sample.posted.body), terms)
    assert isinstance(verdict, Refused)
    assert verdict.status == 401


def test_amazons_signature_of_a_foreign_topic_proves_nothing() -> None:
    sample = load(FOLDER / "negative" / "ses_foreign_topic.json")
    posted, terms = by_sns(sample.posted.body, sample.posted.headers, sample.now)
    assert isinstance(webhook("ses")(posted, terms), Refused)
    assert isinstance(webhook("ses")(posted, terms._replace(certificates={})), Refused)


@pytest.mark.parametrize("sample", ALL)
def test_the_same_event_has_the_same_key_and_each_its_own(sample: Sample) -> None:
    once, twice = accepted(sample).events, accepted(sample).events
    assert [event.key for event in once] == [event.key for event in twice]
    assert len({event.key for event in once}) == len(once)
    assert all(0 < len(event.key) <= 200 for event in once)


def test_a_bearer_token_is_as_good_as_a_password() -> None:
    sample = load(FOLDER / "brevo" / "delivered.json")
    verdict = webhook("brevo")(sample.posted, Terms(sample.now, secrets=("a:b", "test-brevo-bearer-token")))
    assert isinstance(verdict, Accepted)
    posted, terms = by_password(sample.posted.body, {}, sample.now)
    assert isinstance(webhook("brevo")(posted, terms), Accepted)
