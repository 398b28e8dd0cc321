"""A message as an API takes it, and the request that carries it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import h11

from relay.config.access import Endpoint
from relay.config.model import Upstream
from relay.mail.correlation import correlated
from relay.mail.message import from_addresses, parse
from relay.mail.rebuilding import CannotRebuild, carried_by, rebuilt
from relay.mail.recode import Form, Unencodable, has_utf8_head, recoded
from relay.mail.setting import taken_out, with_fields
from relay.providers.api import Api, ApiMail, ApiRequest, Call, Credentials, Mailbox, Rebuilt, same
from relay.providers.apis.registry import api_named
from relay.providers.registry import provider_named
from relay.upstream.http.connection import request_head
from relay.upstream.load import Finish, Load, Parts

LARGE_BYTES = 256_000
"""from here on a content is taken apart and encoded off the event loop"""
_UNENCODABLE = "a header section with raw 8-bit text that can't be encoded"


class Carried(NamedTuple):
    """A message that an API can carry."""

    mail: ApiMail
    """but for the content of a raw API, which `parts` has"""
    parts: Parts | None
    """the signed content of a raw API, once the gate is open"""
    is_large: bool


class Shipment(NamedTuple):
    """A message's envelope as one request has it."""

    relay_id: str
    sender: str
    recipients: tuple[str, ...]
    redirected_to: str | None = None
    """the address that it goes to instead of its recipients; `recipients` is this one then"""
    done: frozenset[str] = frozenset()
    """recipients of the message that this request isn't for: they have had their end (`same`)"""
    leaves_others_out: bool = False
    """other addresses in To and Cc aren't shown: this is a part of a message that rules split, and there is no SMTP
    server that could show them"""

    @classmethod
    def of(cls, load: Load, config: Upstream) -> Shipment:
        recipients = tuple(recipient.address for _, recipient in load.recipients)
        done = {same(one.address) for one in load.envelope.recipients} - set(map(same, recipients))
        leaves_others_out = load.is_part and config.via == "api"
        of_load = (load.message_id, load.envelope.sender, recipients, load.redirected_to)
        return cls(*of_load, frozenset(done), leaves_others_out)


class _Seen(NamedTuple):
    """A content as one API sees it, for any recipients."""

    content: bytes
    """of a raw API"""
    size_bytes: int
    steering: dict[str, tuple[str, ...]]
    author: str
    rebuilt: Rebuilt | None
    reason: str | None
    """why a JSON API can't carry it"""


async def carried(load: Load, config: Upstream, finish: Finish) -> Carried | str:
    """The message, or why the API can't carry it; the reason holds nothing of the message."""
    api, mail = api_named(config.api.kind or ""), await seen(load, config, finish)
    if isinstance(mail, str):
        return mail
    is_large = len(load.original) >= LARGE_BYTES
    if api.form == "json":
        return Carried(mail, None, is_large)
    try:
        return Carried(mail, await load.signed(_form(mail.content), finish), is_large)
    except Unencodable:
        return _UNENCODABLE


async def seen(load: Load, config: Upstream, finish: Finish) -> ApiMail | str:
    """As `carried`, without a signature."""
    known = seen_now(load, config, finish)
    if known is not None:
        return known
    api = api_named(config.api.kind or "")
    found = await asyncio.to_thread(_see, await load.finished(finish), api)
    load.memo["api", api, finish] = found
    return _mail_of(found, api, Shipment.of(load, config))


def seen_now(load: Load, config: Upstream, finish: Finish) -> ApiMail | str | None:
    """As `seen`. None: it would hold up the event loop."""
    api = api_named(config.api.kind or "")
    memo = load.memo.get(("api", api, finish))
    if not isinstance(memo, _Seen):
        content = load.finished_now(finish)
        if content is None:
            return None
        load.memo["api", api, finish] = memo = _see(content, api)
    return _mail_of(memo, api, Shipment.of(load, config))


def why_not(content: bytes, config: Upstream, shipment: Shipment) -> str | None:
    """Why the upstream's API can't carry a content as it was accepted (`relay.mail.message.prepare`), before it is
    sent; None: it can. The reason holds nothing of the message. Blocks for as long as it takes."""
    api, finish = api_named(config.api.kind or ""), Finish.of(config)
    content = with_fields(content, finish.settings)
    provider = provider_named(finish.provider) if finish.provider is not None else None
    if provider is not None:
        content = correlated(content, provider, shipment.relay_id)
    mail = _mail_of(_see(content, api), api, shipment)
    if isinstance(mail, str) or api.form == "json":
        return mail if isinstance(mail, str) else None
    try:
        recoded(mail.content, _form(mail.content))
    except Unencodable:
        return _UNENCODABLE
    return None


def _form(content: bytes) -> Form:
    """That in which a raw API takes it."""
    return "ASCII head" if not content.isascii() and has_utf8_head(content) else "as it is"


def _mail_of(found: _Seen, api: Api, shipment: Shipment) -> ApiMail | str:
    """What one request would carry of a content that was seen before."""
    relay_id, sender, recipients, redirected_to, done, leaves_others_out = shipment
    if found.size_bytes > api.max_bytes:
        return f"larger than {api.max_bytes} bytes"
    if len(recipients) > api.recipients:
        return f"more than {api.recipients} recipients"
    parts = found.rebuilt
    if parts is not None and redirected_to is not None:
        parts = parts._replace(to=(Mailbox(redirected_to),), cc=())
    elif parts is not None:
        named = {same(one.address) for one in (*parts.to, *parts.cc)} if leaves_others_out else set()
        parts = _without(parts, done | (named - set(map(same, recipients))), recipients)
    reason = found.reason or (carried_by(parts, api.allows_header, recipients) if parts is not None else None)
    if reason is not None:
        return reason
    mail = ApiMail(relay_id, sender, recipients, found.author, found.steering, found.content, parts)
    return api.why_not(mail) or mail


def _without(parts: Rebuilt, done: frozenset[str], recipients: Sequence[str]) -> Rebuilt:
    """Without recipients that have had their end, or have it elsewhere: the API would send it to them, too. Where none
    is left in To, the only recipient stands there, as most APIs want it."""
    if not done:
        return parts
    to, cc = (tuple(one for one in each if same(one.address) not in done) for each in (parts.to, parts.cc))
    if parts.to and not to:
        to, cc = (cc, ()) if cc else (tuple(map(Mailbox, recipients)) if len(recipients) == 1 else (), ())
    return parts._replace(to=to, cc=cc)


def _see(content: bytes, api: Api) -> _Seen:
    content, steering = taken_out(content, api.steering)
    author = next(iter(from_addresses(parse(content))), "")
    if api.form == "raw":
        return _Seen(content, len(content), dict(steering), author, None, None)
    try:
        return _Seen(b"", len(content), dict(steering), author, rebuilt(content), None)
    except CannotRebuild as error:
        return _Seen(b"", len(content), dict(steering), author, None, error.reason)


def idempotency_key(load: Load) -> str:
    """The same for the same message and recipients, after a restart, too."""
    parts = (load.message_id, *(recipient.address for _, recipient in load.recipients))
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
    return f"otp-relay-{load.message_id}-{digest[:16]}"


async def request(
    one: Carried, api: Api, where: Endpoint, credentials: Credentials, key: str, now: float
) -> tuple[h11.Request, bytes]:
    """The request's head and body. Call it once the gate is open. `key`: for idempotency; `now`: seconds since the
    epoch."""
    mail = one.mail
    if one.parts is not None:
        mail = mail._replace(content=b"".join(one.parts()))
    call = Call(credentials, where.authority, where.prefix, now, key)
    make: Callable[[ApiMail, Call], ApiRequest] = api.request
    made = await asyncio.to_thread(make, mail, call) if one.is_large else make(mail, call)
    return request_head(where, "POST", made.path, made.headers, len(made.body)), made.body
