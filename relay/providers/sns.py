"""Amazon SNS: the envelope around what it posts, and the signature in it.

A signature by Amazon alone proves nothing: anybody may subscribe any URL to a topic of their own. So the topic has to
be one that the configuration lists, and it is compared before all else.

Source: "Verifying the signatures of Amazon SNS messages".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from relay.providers.proof import from_base64, raw
from relay.providers.reading import UNREADABLE, read_json
from relay.providers.webhook import NeedsCertificate, Posted, Refused, Terms

_HOST = r"https://sns\.[a-zA-Z0-9-]{3,63}\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE_URL = re.compile(_HOST + r"/(?:[\w-]{1,100}/){0,5}[\w-]{1,150}\.pem", re.ASCII)
_SUBSCRIBE_URL = re.compile(_HOST + r"/\?[\w.~:%&=+-]{1,2000}", re.ASCII)
_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED: Mapping[str, tuple[str, ...]] = {
    "Notification": _NOTIFICATION,
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}
_OPTIONAL = "Subject"
_HASHES: Mapping[str, HashAlgorithm] = {"1": SHA1(), "2": SHA256()}  # noqa: S303 - SNS's default
RAW = "raw message delivery is on: turn it off in the SNS subscription"
_NO_ENVELOPE = "unsigned request: only Amazon SNS may post here, from a topic of webhook.topics"
Envelope = dict[str, str]


def open_envelope(posted: Posted, terms: Terms) -> Envelope | Refused | NeedsCertificate:
    """The texts of a proved SNS message by their names."""
    body = read_json(posted.body)
    if posted.headers.get("x-amz-sns-rawdelivery", "").lower() == "true" or _is_raw(body):
        return Refused(401, RAW)
    if body is UNREADABLE or not isinstance(body, dict):
        return Refused(401, _NO_ENVELOPE)
    envelope = {name: value for name, value in body.items() if isinstance(value, str)}
    if envelope.get("TopicArn") not in terms.topics:
        return Refused(401, "the SNS topic isn't in webhook.topics: list it there if it is yours")
    url = envelope.get("SigningCertURL", "")
    if _CERTIFICATE_URL.fullmatch(url) is None:
        return Refused(401, "the signing certificate's URL isn't one of Amazon SNS")
    names = _SIGNED.get(envelope.get("Type", ""))
    algorithm = _HASHES.get(envelope.get("SignatureVersion", ""))
    signature = from_base64(envelope.get("Signature", ""))
    if names is None or algorithm is None or not signature:
        return Refused(401, "the SNS message has no signature of version 1 or 2")
    if any(name not in envelope for name in names if name != _OPTIONAL):
        return Refused(401, "the SNS message lacks a part that its signature covers")
    if url not in terms.certificates:
        return NeedsCertificate(url)
    return _check(envelope, names, algorithm, signature, terms)


def _check(
    envelope: Envelope, names: tuple[str, ...], algorithm: HashAlgorithm, signature: bytes, terms: Terms
) -> Envelope | Refused:
    key = _public_key(terms.certificates[envelope["SigningCertURL"]], terms.now)
    if isinstance(key, Refused):
        return key
    signed = "".join(f"{name}\n{envelope[name]}\n" for name in names if name in envelope)
    try:
        key.verify(signature, raw(signed), PKCS1v15(), algorithm)
    except InvalidSignature:
        return Refused(401, "the signature of the SNS message is wrong")
    except UnsupportedAlgorithm:
        return Refused(401, "this machine's OpenSSL refuses SHA-1: set SignatureVersion 2 on the SNS topic")
    return envelope


def _public_key(pem: bytes, now: float) -> RSAPublicKey | Refused:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return Refused(401, "the SNS certificate can't be read: check webhook.certificates")
    if not isinstance(key, RSAPublicKey):
        return Refused(401, "the SNS certificate has no RSA key")
    if not certificate.not_valid_before_utc <= datetime.fromtimestamp(now, UTC) <= certificate.not_valid_after_utc:
        return Refused(401, "the SNS certificate isn't valid today: check this machine's clock")
    return key


def _is_raw(body: object) -> bool:
    """Whether this is an event of SES without its envelope."""
    return isinstance(body, dict) and "Signature" not in body and ("eventType" in body or "notificationType" in body)


def confirm_url(envelope: Envelope) -> str | None:
    """The URL that confirms a subscription; None: it isn't one of Amazon SNS."""
    url = envelope.get("SubscribeURL", "")
    return url if _SUBSCRIBE_URL.fullmatch(url) else None


def is_notification(envelope: Envelope) -> bool:
    """Whether it carries a message of the topic."""
    return envelope["Type"] == "Notification"


def is_subscription(envelope: Envelope) -> bool:
    """Whether it asks to confirm a new subscription."""
    return envelope["Type"] == "SubscriptionConfirmation"
