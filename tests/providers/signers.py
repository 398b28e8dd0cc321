"""Webhook requests signed as each ESP signs them, with keys of our own and by other code than the relay's."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook

from relay.providers.webhook import Posted, Terms

WHSEC = "whsec_" + base64.b64encode(b"a key of the tests, 24 b").decode()
HMAC_KEY = "key-of-the-tests"
PASSWORD = "hook:s3cret"
HOOK_URL = "https://hooks.example.com/webhooks/mandrill"
TOPIC = "arn:aws:sns:us-east-1:111122223333:ses-otp-events"
CERTIFICATE_URL = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
VALID = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


class Signed(NamedTuple):
    """A request that proves itself, and the configuration that it proves itself to."""

    posted: Posted
    terms: Terms


Headers = Mapping[str, str]
Signer = Callable[[bytes, Headers, float], Signed]


def by_password(body: bytes, headers: Headers, now: float) -> Signed:
    basic = "Basic " + base64.b64encode(PASSWORD.encode()).decode()
    return Signed(Posted({**headers, "authorization": basic}, body), Terms(now, secrets=(PASSWORD,)))


@functools.cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def shown(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key as SendGrid shows it."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(key.public_key().public_bytes(encoding, form)).decode()


def by_sendgrid(body: bytes, headers: Headers, now: float) -> Signed:
    stamp = str(int(now))
    signature = ec_key().sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    proof = {
        "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
        "x-twilio-email-event-webhook-timestamp": stamp,
    }
    return Signed(Posted({**headers, **proof}, body), Terms(now, secrets=(shown(ec_key()),)))


def by_svix(body: bytes, headers: Headers, now: float) -> Signed:
    identity = headers.get("svix-id", "msg_of_the_tests")
    signature = Webhook(WHSEC).sign(identity, datetime.fromtimestamp(int(now), UTC), body.decode())
    proof = {"svix-id": identity, "svix-timestamp": str(int(now)), "svix-signature": signature}
    return Signed(Posted({**headers, **proof}, body), Terms(now, secrets=(WHSEC,)))


def by_mailgun(body: bytes, headers: Headers, now: float) -> Signed:
    """The body with its proof replaced."""
    stamp, token = str(int(now)), hashlib.sha256(body).hexdigest()[:50]
    proof = {"timestamp": stamp, "token": token, "signature": _hex(stamp + token)}
    if body.startswith(b"{"):
        body = json.dumps({**json.loads(body), "signature": proof}).encode()
    else:
        fields = {name: values[-1] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        body = urlencode({**fields, **proof}).encode()
    return Signed(Posted(headers, body), Terms(now, secrets=(HMAC_KEY,)))


def _hex(text: str) -> str:
    return hmac.new(HMAC_KEY.encode(), text.encode(), hashlib.sha256).hexdigest()


def by_mandrill(body: bytes, headers: Headers, now: float) -> Signed:
    signed = HOOK_URL
    for name, values in sorted(parse_qs(body.decode(), keep_blank_values=True).items()):
        signed += name + values[-1]
    mac = base64.b64encode(hmac.new(HMAC_KEY.encode(), signed.encode(), hashlib.sha1).digest()).decode()
    posted = Posted({**headers, "x-mandrill-signature": mac}, body)
    return Signed(posted, Terms(now, secrets=(HMAC_KEY,), url=HOOK_URL))


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@functools.cache
def certificate() -> bytes:
    """The test's own certificate in the place of Amazon's."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder(name, name, rsa_key().public_key(), 1, *VALID)
    return builder.sign(rsa_key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def by_sns(body: bytes, headers: Headers, now: float) -> Signed:
    """The SNS message with its signature replaced."""
    message = json.loads(body)
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    signed = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    algorithm = hashes.SHA1() if message["SignatureVersion"] == "1" else hashes.SHA256()
    message["Signature"] = base64.b64encode(rsa_key().sign(signed.encode(), padding.PKCS1v15(), algorithm)).decode()
    posted = Posted(headers, json.dumps(message).encode())
    return Signed(posted, Terms(now, topics=(TOPIC,), certificates={CERTIFICATE_URL: certificate()}))


def sns_message(message: object, **more: str) -> bytes:
    """An unsigned SNS notification around an event of SES."""
    envelope = {
        "Type": "Notification",
        "MessageId": "19ba9823-d7f2-53c1-860e-cb10e0d13dfc",
        "TopicArn": TOPIC,
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2026-03-01T12:00:10.675Z",
        "SignatureVersion": "2",
        "SigningCertURL": CERTIFICATE_URL,
    }
    return json.dumps({**envelope, **more}).encode()


SIGNERS: dict[str, Signer] = {
    "postmark": by_password,
    "sendgrid": by_sendgrid,
    "ses": by_sns,
    "resend": by_svix,
    "mailgun": by_mailgun,
    "brevo": by_password,
    "sparkpost": by_password,
    "mailjet": by_password,
    "mandrill": by_mandrill,
}
NOW = VALID[0].timestamp() + timedelta(days=60).total_seconds()
