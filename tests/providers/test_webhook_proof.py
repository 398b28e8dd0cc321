"""What is refused: tampering, other keys, staleness, foreign topics; and that the refusal names the ESP's switch."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from relay.providers.webhook import Accepted, NeedsCertificate, Posted, Refused, Terms, Verdict
from tests.providers.signers import (
    CERTIFICATE_URL,
    NOW,
    PASSWORD,
    SIGNERS,
    TOPIC,
    WHSEC,
    Signed,
    by_mailgun,
    by_mandrill,
    by_password,
    by_sendgrid,
    by_sns,
    by_svix,
    shown,
    sns_message,
)
from tests.providers.test_webhook_samples import FOLDER, load, webhook

SECRET = "a secret of the request that no refusal quotes"
BODIES: dict[str, bytes] = {
    "postmark": b'{"RecordType":"Delivery","Tag":"%b"}' % SECRET.encode(),
    "sendgrid": b'[{"event":"delivered","reason":"%b"}]\r\n' % SECRET.encode(),
    "ses": sns_message({"eventType": "Send", "mail": {"source": SECRET}}),
    "resend": b'{"type":"email.sent","data":{"subject":"%b"}}' % SECRET.encode(),
    "mailgun": b'{"event-data":{"event":"opened","ip":"%b"}}' % SECRET.encode(),
    "brevo": b'{"event":"click","link":"%b"}' % SECRET.encode(),
    "sparkpost": b'[{"msys":{"x":{"type":"open","subject":"%b"}}}]' % SECRET.encode(),
    "mailjet": b'{"event":"open","agent":"%b"}' % SECRET.encode(),
    "mandrill": urlencode({"mandrill_events": json.dumps([{"event": "open", "url": SECRET}])}).encode(),
}
SIGNED = {esp: SIGNERS[esp](body, {}, NOW) for esp, body in BODIES.items()}
ESPS = pytest.mark.parametrize("esp", SIGNERS)
SWITCHES = {
    "postmark": "webhook's URL in Postmark",
    "sendgrid": 'turn on "Signed Event Webhook" in SendGrid (Settings, Mail Settings, Event Webhooks)',
    "ses": "webhook.topics",
    "resend": "in Resend (Webhooks)",
    "mailgun": "HTTP webhook signing key in Mailgun",
    "brevo": "in Brevo (Transactional, Settings, Webhook)",
    "sparkpost": "in SparkPost (Configuration, Webhooks)",
    "mailjet": "in Mailjet (Account settings, Event notifications)",
    "mandrill": "in Mandrill (Settings, Webhooks)",
}


def refused(verdict: Verdict, status: int = 401) -> str:
    assert isinstance(verdict, Refused)
    assert verdict.status == status
    assert SECRET not in verdict.why
    return verdict.why


@ESPS
def test_a_request_without_a_proof_is_refused_with_the_switch_to_turn(esp: str) -> None:
    _, terms = SIGNED[esp]
    body = b"{}" if esp in ("ses", "mailgun") else BODIES[esp]
    assert SWITCHES[esp] in refused(webhook(esp)(Posted({}, body), terms))


@ESPS
def test_without_a_secret_or_topic_nothing_is_believed(esp: str) -> None:
    posted, terms = SIGNED[esp]
    assert isinstance(webhook(esp)(posted, terms), Accepted)
    for secrets in ((), ("",), ("", "")):
        refused(webhook(esp)(posted, terms._replace(secrets=secrets, topics=())))


@ESPS
@pytest.mark.parametrize("place", ["first", "second"])
def test_while_a_secret_is_replaced_either_is_good(esp: str, place: str) -> None:
    posted, terms = SIGNED[esp]
    others = ("", "other", "other:user", "whsec_b3RoZXI=", "no key: \udcff", "MFkw")
    secrets = (*terms.secrets, *others) if place == "first" else (*others, *terms.secrets)
    assert isinstance(webhook(esp)(posted, terms._replace(secrets=secrets)), Accepted)
    if esp != "ses":
        refused(webhook(esp)(posted, terms._replace(secrets=others)))


def tampered(value: str, place: int, other: str) -> str:
    """The value with one character replaced, added or left out."""
    place %= len(value)
    return value[:place] + other + value[place + 1 :]


def tampers() -> st.SearchStrategy[tuple[int, str]]:
    others = st.one_of(st.sampled_from(["", "A", "0", "=", " ", "+", "é", "\udcff", "AA", ","]), st.characters())
    return st.tuples(st.integers(0, 10_000), others)


SOME = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PROOFS = {
    "postmark": ["authorization"],
    "sendgrid": ["x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp"],
    "resend": ["svix-id", "svix-timestamp", "svix-signature"],
    "brevo": ["authorization"],
    "sparkpost": ["authorization"],
    "mailjet": ["authorization"],
    "mandrill": ["x-mandrill-signature"],
}


@pytest.mark.parametrize(("esp", "name"), [(esp, name) for esp, names in PROOFS.items() for name in names])
def test_a_tampered_proof_is_refused(esp: str, name: str) -> None:
    posted, terms = SIGNED[esp]

    @SOME
    @given(tampers())
    def tamper(change: tuple[int, str]) -> None:
        value = tampered(posted.headers[name], *change)
        # A scheme's name has no case, and blanks around a value don't count in HTTP.
        if " ".join(value.split()).lower() == posted.headers[name].lower() or value.strip() == posted.headers[name]:
            return
        refused(webhook(esp)(posted._replace(headers={**posted.headers, name: value}), terms))

    tamper()


@pytest.mark.parametrize("esp", ["sendgrid", "resend", "mandrill"])
@SOME
@given(place=st.integers(0, 10_000), byte=st.binary(min_size=0, max_size=2))
def test_a_tampered_body_is_refused(esp: str, place: int, byte: bytes) -> None:
    posted, terms = SIGNED[esp]
    place %= len(posted.body)
    body = posted.body[:place] + byte + posted.body[place + 1 :]
    # One form has many encodings, such as + and %20: Mandrill signs the fields.
    same = (
        parse_qs(body.decode("latin-1")) == parse_qs(posted.body.decode()) if esp == "mandrill" else body == posted.body
    )
    if not same:
        refused(webhook(esp)(posted._replace(body=body), terms))


@pytest.mark.parametrize("name", ["Message", "MessageId", "Timestamp", "TopicArn", "Type", "Signature", "Subject"])
@SOME
@given(change=tampers())
def test_a_tampered_part_of_an_sns_message_is_refused(name: str, change: tuple[int, str]) -> None:
    posted, terms = by_sns(sns_message({"eventType": "Send"}, Subject="Amazon SES"), {}, NOW)
    message = json.loads(posted.body)
    value = tampered(message[name], *change)
    if value != message[name]:
        body = json.dumps({**message, name: value}).encode()
        refused(webhook("ses")(posted._replace(body=body), terms))


@pytest.mark.parametrize("name", ["timestamp", "token", "signature"])
@SOME
@given(change=tampers())
def test_a_tampered_part_of_mailguns_proof_is_refused(name: str, change: tuple[int, str]) -> None:
    posted, terms = SIGNED["mailgun"]
    message = json.loads(posted.body)
    value = tampered(message["signature"][name], *change)
    if value != message["signature"][name]:
        body = json.dumps({**message, "signature": {**message["signature"], name: value}}).encode()
        refused(webhook("mailgun")(posted._replace(body=body), terms))


def test_base64_has_one_form_only() -> None:
    posted, terms = SIGNED["sendgrid"]
    name = "x-twilio-email-event-webhook-signature"
    value = posted.headers[name]
    for other in (value + "=", value.rstrip("=") + "A==", value[:8] + "\n" + value[8:], value.replace("=", "")):
        if other != value:
            refused(webhook("sendgrid")(posted._replace(headers={**posted.headers, name: other}), terms))


@pytest.mark.parametrize("esp", ["sendgrid", "ses"])
def test_another_key_is_refused(esp: str) -> None:
    posted, terms = SIGNED[esp]
    other = shown(ec.generate_private_key(ec.SECP256R1()))
    key = rsa.generate_private_key(65537, 1024)
    certificates = {CERTIFICATE_URL: certificate_of(key)}
    refused(webhook(esp)(posted, terms._replace(secrets=(other,), certificates=certificates)))


def certificate_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, year: int = 2026) -> bytes:
    name = x509.Name([])
    valid = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, *valid)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(("esp", "tolerance"), [("resend", 300), ("mailgun", 12 * 3600)])
def test_a_request_out_of_its_window_is_refused(esp: str, tolerance: int) -> None:
    posted, terms = SIGNED[esp]
    for sign in (-1, 1):
        assert isinstance(webhook(esp)(posted, terms._replace(now=NOW + sign * tolerance)), Accepted)
        why = refused(webhook(esp)(posted, terms._replace(now=NOW + sign * (tolerance + 1))))
        assert "clock" in why


def test_sendgrid_posts_an_event_again_for_days() -> None:
    posted, terms = SIGNED["sendgrid"]
    assert isinstance(webhook("sendgrid")(posted, terms._replace(now=NOW + 3 * 86400)), Accepted)


@pytest.mark.parametrize("prefix", ["svix", "webhook"])
def test_resend_may_sign_more_than_once_and_by_either_name(prefix: str) -> None:
    body = BODIES["resend"]
    good = Webhook(WHSEC).sign("msg_1", datetime.fromtimestamp(NOW, UTC), body.decode())
    bad = Webhook("whsec_b3RoZXI=").sign("msg_1", datetime.fromtimestamp(NOW, UTC), body.decode())
    headers = {f"{prefix}-id": "msg_1", f"{prefix}-timestamp": str(int(NOW))}
    for signatures, right in [(f"{bad} {good}", True), (f"v2,x {good}", True), (bad, False), (good[3:], False)]:
        verdict = webhook("resend")(Posted({**headers, f"{prefix}-signature": signatures}, body), Terms(NOW, (WHSEC,)))
        assert isinstance(verdict, Accepted) is right


def test_a_token_of_mailgun_is_handed_on() -> None:
    posted, terms = SIGNED["mailgun"]
    verdict = webhook("mailgun")(posted, terms)
    assert isinstance(verdict, Accepted)
    assert verdict.token == json.loads(posted.body)["signature"]["token"]


def test_the_last_of_equal_fields_proves_a_form_of_mailgun() -> None:
    posted, terms = by_mailgun(b"event=opened&recipient=ann%40example.org", {}, NOW)
    assert isinstance(webhook("mailgun")(posted._replace(body=b"token=mine&" + posted.body), terms), Accepted)
    refused(webhook("mailgun")(posted._replace(body=posted.body + b"&token=mine"), terms))


def test_mandrills_url_is_signed() -> None:
    posted, terms = SIGNED["mandrill"]
    assert "webhook.url" in refused(webhook("mandrill")(posted, terms._replace(url=f"{terms.url}/")))
    assert "webhook.url" in refused(webhook("mandrill")(posted, terms._replace(url=None)))


@pytest.mark.parametrize(
    ("authorization", "secret", "right"),
    [
        ("Bearer token", "token", True),
        ("bearer token", "token", True),
        ("Bearer Token", "token", False),
        ("Bearer " + PASSWORD, PASSWORD, False),
        ("Basic " + base64.b64encode(b"token").decode(), "token", False),
        ("basic " + base64.b64encode(PASSWORD.encode()).decode(), PASSWORD, True),
        ("Basic " + base64.b64encode("ä:ö".encode()).decode(), "ä:ö", True),
        ("Basic \udcff", PASSWORD, False),
        ("Digest x", PASSWORD, False),
        ("Bearer", "token", False),
    ],
)
@pytest.mark.parametrize("esp", ["postmark", "brevo", "sparkpost", "mailjet"])
def test_a_secret_with_a_colon_is_a_password_and_any_other_a_token(
    esp: str, authorization: str, secret: str, right: bool
) -> None:
    posted = Posted({"authorization": authorization}, BODIES[esp])
    assert isinstance(webhook(esp)(posted, Terms(NOW, secrets=("x", secret))), Accepted) is right


SPOOFED = [
    "http://sns.us-east-1.amazonaws.com/x.pem",
    "https://sns.us-east-1.amazonaws.com.example.com/x.pem",
    "https://sns.us-east-1.amazonaws.com@example.com/x.pem",
    "https://example.com/sns.us-east-1.amazonaws.com/x.pem",
    "https://sns.us-east-1.amazonaws.com:8443/x.pem",
    "https://sns.us-east-1.amazonaws.com/x.pem?y",
    "https://sns.us-east-1.amazonaws.com/x.pem#y",
    "https://sns.us-east-1.amazonaws.com/../x.pem",
    "https://sns.us-east-1.amazonaws.com/x.txt",
    "https://sns.us-east-1.amazonaws.com/x.pem\n",
    "https://sns.a.b.amazonaws.com/x.pem",
    "https://s3.us-east-1.amazonaws.com/x.pem",
    "",
]


@pytest.mark.parametrize("url", SPOOFED)
def test_only_amazons_certificates_are_asked_for(url: str) -> None:
    posted, terms = by_sns(sns_message({"eventType": "Send"}, SigningCertURL=url), {}, NOW)
    pem = terms.certificates[CERTIFICATE_URL]
    for certificates in ({}, {url: pem}):
        refused(webhook("ses")(posted, terms._replace(certificates=certificates)))


@pytest.mark.parametrize("region", ["us-east-1.amazonaws.com", "cn-north-1.amazonaws.com.cn"])
def test_a_certificate_that_isnt_at_hand_is_asked_for(region: str) -> None:
    url = f"https://sns.{region}/SimpleNotificationService-0123.pem"
    posted, terms = by_sns(sns_message({"eventType": "Send"}, SigningCertURL=url), {}, NOW)
    assert webhook("ses")(posted, terms) == NeedsCertificate(url)


def test_a_certificate_counts_while_it_is_valid_and_has_an_rsa_key() -> None:
    posted, terms = SIGNED["ses"]
    for now in (0.0, NOW - 366 * 86400, NOW + 366 * 86400):
        assert "certificate" in refused(webhook("ses")(posted, terms._replace(now=now)))
    for pem in (b"", b"no PEM", certificate_of(ec.generate_private_key(ec.SECP256R1()))):
        assert "certificate" in refused(webhook("ses")(posted, terms._replace(certificates={CERTIFICATE_URL: pem})))


@pytest.mark.parametrize("kind", ["subscription_confirmation", "unsubscribe_confirmation", "delivery"])
def test_the_topic_comes_before_all_else(kind: str) -> None:
    sample = load(FOLDER / "ses" / f"{kind}.json")
    posted, terms = by_sns(sample.posted.body, {}, sample.now)
    assert isinstance(webhook("ses")(posted, terms), Accepted)
    for certificates in (terms.certificates, {}):
        terms = terms._replace(topics=(TOPIC + "x", TOPIC.upper()), certificates=certificates)
        assert "webhook.topics" in refused(webhook("ses")(posted, terms))


@pytest.mark.parametrize("url", ["https://example.com/?Action=ConfirmSubscription", "http://sns.a-b.amazonaws.com/?x"])
def test_a_subscription_is_confirmed_at_amazon_only(url: str) -> None:
    body = sns_message("You have chosen", Type="SubscriptionConfirmation", SubscribeURL=url, Token="x")
    refused(webhook("ses")(*by_sns(body, {}, NOW)))


@pytest.mark.parametrize("headers", [{}, {"x-amz-sns-rawdelivery": "true"}])
def test_raw_delivery_of_sns_is_refused_with_its_switch(headers: dict[str, str]) -> None:
    body = b'{"eventType": "Send", "mail": {}}'
    why = refused(webhook("ses")(Posted(headers, body), Terms(NOW, topics=(TOPIC,))))
    assert why == "raw message delivery is on: turn it off in the SNS subscription"


@ESPS
def test_what_is_proved_and_is_no_json_is_unreadable(esp: str) -> None:
    bodies: dict[str, list[Signed]] = {
        "sendgrid": [by_sendgrid(body, {}, NOW) for body in (b"", b"nothing", b"[" * 9_000, b'"x"', b"\xff")],
        "resend": [by_svix(body, {}, NOW) for body in (b"", b"[]", b"{" * 9_000, b"7")],
        "mailgun": [by_mailgun(body, {}, NOW) for body in (b"{}", b'{"event-data": 7}')],
        "mandrill": [by_mandrill(body, {}, NOW) for body in (b"mandrill_events=%5B", b"mandrill_events=7")],
        "ses": [],
    }
    for posted, terms in bodies.get(esp, [by_password(body, {}, NOW) for body in (b"", b"x", b"[" * 9_000, b"7")]):
        assert "body" in refused(webhook(esp)(posted, terms), 400)
