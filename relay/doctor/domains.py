"""Checks of each domain that signs: keys against DNS, a verified probe, SPF and DMARC."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import dkim

from relay.config.model import DkimDomain
from relay.doctor.finding import About, Finding
from relay.doctor.records import (
    MAX_LOOKUPS,
    BadRecord,
    Dmarc,
    Spf,
    dmarc,
    dmarc_domains,
    governing,
    is_dmarc,
    is_spf,
    key_remarks,
    spf,
)
from relay.doctor.resolver import Answer, Resolver, Texts, Unknown
from relay.mail.dkim import Key, KeySet, Signer, ascii_domain, dns_record
from relay.mail.message import parse

_NO_DNS = "ask again where DNS can be reached"
_MAX_FOLLOWED = 3 * MAX_LOOKUPS
"""look-ups after which a record that is far beyond the limit is not followed further"""


async def check(domains: Sequence[DkimDomain], signer: Signer, resolver: Resolver, now: int) -> list[Finding]:
    """Check all domains concurrently. `now`: the signing time of the probe, in seconds."""
    about = About("dkim")
    if not domains:
        hint = "add a domain under dkim:, unless every upstream signs with a key of your domain"
        return [about.warn("no domain is configured: mail leaves unsigned", hint)]
    names = [ascii_domain(entry.domain) for entry in domains]
    found = await asyncio.gather(*(_domain(name, signer, resolver, now) for name in names))
    return [finding for findings in found for finding in findings]


async def _domain(domain: str, signer: Signer, resolver: Resolver, now: int) -> list[Finding]:
    keyset = signer.select(domain)
    if keyset is None:
        raise ValueError(f"{domain} isn't among the signer's domains")
    records, of_spf, of_dmarc = await asyncio.gather(
        asyncio.gather(*(resolver.txt(_key_name(domain, key)) for key in keyset.keys)),
        _spf(domain, resolver),
        _dmarc(domain, resolver),
    )
    return [*_keys(keyset, records, now), *of_spf, *of_dmarc]


# DKIM


def _key_name(domain: str, key: Key) -> str:
    return f"{key.selector}._domainkey.{domain}"


def _keys(keyset: KeySet, answers: Sequence[Answer], now: int) -> Iterator[Finding]:
    for key, answer in zip(keyset.keys, answers, strict=True):
        name = _key_name(keyset.domain, key)
        about = About("dkim", name)
        publish = f"publish as TXT at {name}: {dns_record(key.private)}"
        match answer:
            case Unknown(reason):
                yield about.unknown(f"the key was not compared: {reason}", _NO_DNS)
            case Texts(()):
                yield about.fail("no key is published: signatures don't verify", publish)
            case Texts(texts):
                found = [about.found(one.status, one.text, publish) for one in key_remarks(texts, key.private)]
                error = None
                if not any(one.status == "fail" for one in found):
                    error = _probe_error(KeySet(keyset.domain, (key,)), name, texts[0], now)
                if error is not None:
                    text = f"the published key is ours, but a probe signed with it doesn't verify: {error}"
                    found.append(about.fail(text, publish))
                yield from found or [about.ok("the published key is ours, and a probe signed with it verifies")]
    if all(b"a=ed25519" in key.tags for key in keyset.keys):
        text = "only Ed25519 keys sign: many receivers don't verify those (RFC 8463)"
        yield About("dkim", keyset.domain).warn(text, "add an RSA key of 2048 bits beside: otp-relay keygen")


def _probe_error(keyset: KeySet, name: str, record: str, now: int) -> str | None:
    """Why dkimpy, which shares no code with the signer, doesn't verify a message that the signer signed."""
    probe = (
        f"From: probe@{keyset.domain}\r\nTo: probe@{keyset.domain}\r\nSubject: probe\r\n"
        f"Message-ID: <probe@{keyset.domain}>\r\n\r\nA probe of otp-relay doctor.  It goes nowhere.\r\n"
    ).encode("ascii")
    signed = Signer.prepare(parse(probe), keyset, now=now).sign().headers + probe

    def txt(asked: bytes, timeout: float = 0) -> bytes | None:  # noqa: ARG001 - dkimpy's signature
        return record.encode() if asked.decode("ascii").rstrip(".").lower() == name.lower() else None

    try:
        verified = dkim.DKIM(signed).verify(dnsfunc=txt)  # type: ignore[no-untyped-call]
    except dkim.DKIMException as error:
        return str(error)
    return None if verified else "the signature doesn't match"


# SPF


@dataclass(slots=True)
class _Walk:
    """The result of following the records that a record includes."""

    lookups: int = 0
    broken: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


async def _spf(domain: str, resolver: Resolver) -> list[Finding]:
    about = About("spf", domain)
    hint = f"publish a TXT at {domain}, as v=spf1 include:<your upstream's> ~all"
    answer = await resolver.txt(domain)
    if isinstance(answer, Unknown):
        return [about.unknown(f"not checked: {answer.reason}", _NO_DNS)]
    texts = [text for text in answer.texts if is_spf(text)]
    if not texts:
        text = "no SPF record: mail with this domain as envelope sender doesn't pass SPF"
        return [about.warn(text, hint)]
    if len(texts) > 1:
        text = f"{len(texts)} SPF records: receivers count that as an error (RFC 7208 4.5)"
        return [about.fail(text, "merge them into one")]
    try:
        record = spf(texts[0])
    except BadRecord as error:
        return [about.fail(f"receivers can't read the record: {error}", "correct the record")]
    walk = await _follow(record, resolver)
    return list(_of_spf(about, record, walk))


async def _follow(record: Spf, resolver: Resolver) -> _Walk:
    """Count the look-ups of a record and all that it includes (RFC 7208 4.6.4)."""
    walk = _Walk(record.lookups)
    waiting = list(record.nested)
    while waiting and walk.lookups <= _MAX_FOLLOWED:
        name = waiting.pop(0)
        if "%" in name:  # a macro, which depends on the message
            continue
        answer = await resolver.txt(name.rstrip("."))
        if isinstance(answer, Unknown):
            walk.unknown.append(f"{name} ({answer.reason})")
            continue
        texts = [text for text in answer.texts if is_spf(text)]
        if len(texts) != 1:
            walk.broken.append(f"{name} has {len(texts) or 'no'} SPF record{'s' if texts else ''}")
            continue
        try:
            nested = spf(texts[0])
        except BadRecord as error:
            walk.broken.append(f"{name}: {error}")
            continue
        walk.lookups += nested.lookups
        waiting += nested.nested
    return walk


def _of_spf(about: About, record: Spf, walk: _Walk) -> Iterator[Finding]:
    if walk.lookups > MAX_LOOKUPS:
        count = f"more than {_MAX_FOLLOWED}" if walk.lookups > _MAX_FOLLOWED else str(walk.lookups)
        text = f"{count} look-ups: beyond {MAX_LOOKUPS} receivers count it as an error (RFC 7208 4.6.4)"
        yield about.fail(text, "include fewer, or name networks with ip4: and ip6:")
    for broken in walk.broken:
        yield about.fail(f"it includes a broken record: {broken}", "correct the record, or remove it")
    if record.all == "+":
        yield about.warn("it ends in +all: every machine may send", "end it in ~all or -all")
    for unknown in walk.unknown:
        yield about.unknown(f"not followed: {unknown}", _NO_DNS)
    if walk.lookups <= MAX_LOOKUPS and record.all != "+" and not walk.broken and not walk.unknown:
        what = f"includes {', '.join(record.includes)}" if record.includes else "includes no other"
        if record.redirect is not None:
            what += f", redirects to {record.redirect}"
        ends = f"{record.all}all" if record.all else "no all"
        yield about.ok(f"{what}; {walk.lookups} of {MAX_LOOKUPS} look-ups; {ends}")


# DMARC


async def _dmarc(domain: str, resolver: Resolver) -> list[Finding]:
    about = About("dmarc", domain)
    names = dmarc_domains(domain)
    answers = await asyncio.gather(*(resolver.txt(f"_dmarc.{name}") for name in names))
    found: list[tuple[str, Dmarc]] = []
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, Unknown):
            return [about.unknown(f"_dmarc.{name} not checked: {answer.reason}", _NO_DNS)]
        texts = [text for text in answer.texts if is_dmarc(text)]
        try:
            if len(texts) > 1:
                raise BadRecord(f"there are {len(texts)} records (RFC 7489 6.6.3)")
            found += [(name, dmarc(text)) for text in texts]
        except BadRecord as error:
            text = f"receivers ignore _dmarc.{name}: {error}"
            return [about.fail(text, "publish one record, as v=DMARC1; p=reject")]
        if found and name == domain:
            break  # receivers stop at the domain's own record
    applies = governing(domain, found)
    if applies is None:
        hint = f"publish as TXT at _dmarc.{domain}: v=DMARC1; p=none, and p=reject once its reports are clean"
        return [about.warn("no policy: large receivers ask bulk senders for one", hint)]
    return [_of_dmarc(domain, *applies)]


def _of_dmarc(domain: str, at: str, record: Dmarc) -> Finding:
    about = About("dmarc", domain)
    own = at == domain
    policy = record.policy if own else record.subdomains
    where = f"p={policy}" if own else f"{'p' if record.subdomains == record.policy else 'sp'}={policy} of {at}"
    # The signature's d= is the From domain itself, or one above it: see Signer.select.
    aligned = f"d={domain} is aligned with From at {domain}"
    below = "not with domains below it (strict)" if record.adkim == "s" else "and below it"
    text = f"{where}, adkim={record.adkim}, aspf={record.aspf}; {aligned} {below}"
    if policy == "none":
        text = f"{text}; with p=none forged mail is still delivered"
        return about.warn(text, "set p=quarantine or p=reject once the reports are clean")
    return about.ok(text)
