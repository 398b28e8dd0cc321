"""Parse and check DNS records about mail: DKIM keys (RFC 6376 3.6.1), SPF (RFC 7208), DMARC (RFC 7489). No look-ups.

A record that can't be parsed raises BadRecord.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from relay.doctor.finding import Status

PrivateKey = RSAPrivateKey | Ed25519PrivateKey


class BadRecord(ValueError):
    """A record has a syntax error; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Remark:
    """A problem of a record."""

    status: Status
    text: str


def tags(record: str) -> dict[str, str]:
    """The tags of `v=DKIM1; k=rsa; p=...`, in order (RFC 6376 3.2). Raises BadRecord."""
    found: dict[str, str] = {}
    for part in record.split(";"):
        name, sign, value = part.partition("=")
        name = name.strip()
        if not part.strip():
            continue
        if not sign or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise BadRecord("it isn't a list of tag=value")
        if name in found:
            raise BadRecord(f"the tag {name}= occurs twice")
        found[name] = value.strip()
    return found


# DKIM


def key_remarks(texts: Sequence[str], private: PrivateKey) -> Iterator[Remark]:
    """Why a verifier would not accept our signatures, given the TXT records at the selector."""
    if len(texts) > 1:
        # RFC 6376 3.6.2.2: the verifier's choice is undefined.
        yield Remark("fail", f"{len(texts)} TXT records; a verifier may use any of them, or none")
        return
    try:
        given = tags(texts[0])
        if given.get("v", "DKIM1") != "DKIM1" or ("v" in given and next(iter(given)) != "v"):
            raise BadRecord("v= must be DKIM1 and come first")
        _check_key(given, private)
    except BadRecord as error:
        yield Remark("fail", str(error))
        return
    if "sha256" not in _values(given, "h", "sha256"):
        yield Remark("fail", f"h={given['h']} excludes sha256, which the relay signs with")
    if not {"*", "email"} & set(_values(given, "s", "*")):
        yield Remark("fail", f"s={given['s']}: the key isn't for mail")
    if "y" in _values(given, "t", ""):
        yield Remark("warn", "t=y: the domain is testing, verifiers may treat its mail as unsigned")


def _values(given: Mapping[str, str], tag: str, default: str) -> list[str]:
    return [word.strip().lower() for word in given.get(tag, default).split(":")]


def _check_key(given: Mapping[str, str], private: PrivateKey) -> None:
    """Raises BadRecord unless p= is the public half of `private`."""
    if "p" not in given:
        raise BadRecord("there is no p=, so no key")
    encoded = "".join(given["p"].split())
    if not encoded:
        raise BadRecord("the key is revoked: p= is empty")
    kind = "rsa" if isinstance(private, RSAPrivateKey) else "ed25519"
    if (published := given.get("k", "rsa").lower()) != kind:
        raise BadRecord(f"k={published} is published, the key file holds {kind}")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise BadRecord("p= isn't base64: damaged or cut short") from None
    if isinstance(private, RSAPrivateKey):
        same = _rsa(raw).public_numbers() == private.public_key().public_numbers()
    else:
        if len(raw) != 32:  # RFC 8463 4: the bare key, no SubjectPublicKeyInfo around it
            raise BadRecord(f"p= has {len(raw)} octets; an Ed25519 key has 32, without any DER around it")
        same = raw == private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    if not same:
        raise BadRecord("the published public key is not that of the key file")


def _rsa(raw: bytes) -> RSAPublicKey:
    try:
        key = load_der_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        raise BadRecord("p= is no public key: damaged or cut short") from None
    if not isinstance(key, RSAPublicKey):
        raise BadRecord("p= is no RSA key")
    return key


# SPF

MAX_LOOKUPS = 10
"""RFC 7208 4.6.4: more are a permanent error"""
_ASKING = frozenset({"include", "a", "mx", "ptr", "exists", "redirect"})
_MECHANISM = re.compile(r"(?P<qualifier>[-+~?]?)(?P<name>[A-Za-z][A-Za-z0-9._-]*)(?P<rest>[:/].*)?")
_MODIFIER = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9._-]*)=(?P<value>.*)")


@dataclass(frozen=True, slots=True)
class Spf:
    """An SPF record."""

    includes: tuple[str, ...]
    redirect: str | None
    lookups: int
    """terms of this record that need a look-up, without those of included records"""
    all: str
    """the qualifier of `all`: - ~ ? +; '' without `all`"""

    @property
    def nested(self) -> tuple[str, ...]:
        """The domains whose records this one includes."""
        return self.includes if self.redirect is None else (*self.includes, self.redirect)


def is_spf(text: str) -> bool:
    """RFC 7208 4.5: `v=spf1` alone or followed by a blank."""
    return text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")


def spf(text: str) -> Spf:
    """Parse a record for which `is_spf` is true. Raises BadRecord for what receivers count as a syntax error."""
    includes: list[str] = []
    redirect: str | None = None
    lookups, of_all = 0, ""
    for term in text.split()[1:]:
        if modifier := _MODIFIER.fullmatch(term):
            if modifier["name"].lower() == "redirect":
                redirect = modifier["value"]
            continue
        mechanism = _MECHANISM.fullmatch(term)
        if mechanism is None:
            raise BadRecord(f"{term!r} is no term of SPF")
        name, rest = mechanism["name"].lower(), mechanism["rest"] or ""
        _check_mechanism(term, name, rest)
        if name == "all":
            of_all = mechanism["qualifier"] or "+"
            break  # RFC 7208 5.1: receivers ignore what follows
        lookups += name in _ASKING
        if name == "include":
            includes.append(rest[1:])
    if of_all:
        redirect = None  # RFC 7208 6.1
    return Spf(tuple(includes), redirect, lookups + (redirect is not None), of_all)


def _check_mechanism(term: str, name: str, rest: str) -> None:
    if name in ("ip4", "ip6"):
        try:
            network = ip_network(rest[1:], strict=False)
        except ValueError:
            raise BadRecord(f"{term!r} names no IP network") from None
        if not isinstance(network, IPv4Network if name == "ip4" else IPv6Network):
            raise BadRecord(f"{term!r} has an address of the other kind")
    elif name in ("include", "exists"):
        if len(rest) < 2 or rest[0] != ":":
            raise BadRecord(f"{term!r} names no domain")
    elif name not in ("a", "mx", "ptr", "all") or (name == "all" and rest):
        raise BadRecord(f"{term!r} is no mechanism of SPF")


# DMARC

_POLICIES = ("none", "quarantine", "reject")


@dataclass(frozen=True, slots=True)
class Dmarc:
    """A DMARC record."""

    policy: str
    subdomains: str
    """sp=, or p= without one"""
    adkim: str
    aspf: str
    """r (relaxed) or s (strict)"""
    psd: str
    """y: the record of a public suffix; n: of an organisation; u: not given"""


def is_dmarc(text: str) -> bool:
    return re.match(r"v\s*=\s*DMARC1\s*(;|$)", text) is not None


def dmarc(text: str) -> Dmarc:
    """Parse a record for which `is_dmarc` is true. Raises BadRecord."""
    given = tags(text)
    policy = given.get("p", "").lower()
    if policy not in _POLICIES:
        raise BadRecord(f"p={policy} is no policy (none, quarantine, reject)" if policy else "there is no p=")
    subdomains = given.get("sp", policy).lower()
    modes = [given.get(tag, "r").lower() for tag in ("adkim", "aspf")]
    if subdomains not in _POLICIES:
        raise BadRecord(f"sp={subdomains} is no policy (none, quarantine, reject)")
    if not set(modes) <= {"r", "s"}:
        raise BadRecord("adkim= and aspf= are r or s")
    return Dmarc(policy, subdomains, modes[0], modes[1], given.get("psd", "u").lower())


def dmarc_domains(domain: str) -> tuple[str, ...]:
    """The domains whose `_dmarc` record may apply to `domain`: itself, then each domain above it with two to
    seven labels. This is the tree walk of DMARCbis, which needs no list of public suffixes."""
    labels = domain.split(".")
    above = range(min(len(labels) - 1, 7), 1, -1)
    return (domain, *(".".join(labels[-count:]) for count in above))


def governing(domain: str, found: Sequence[tuple[str, Dmarc]]) -> tuple[str, Dmarc] | None:
    """The record that applies: the domain's own, else its organisation's. `found`: in the order of `dmarc_domains`."""
    chosen: tuple[str, Dmarc] | None = None
    for name, record in found:
        if name == domain or record.psd == "n":
            return name, record
        if record.psd == "y":
            below = chosen is not None and chosen[0].count(".") == name.count(".") + 1
            return chosen if below else (name, record)
        chosen = name, record
    return chosen
