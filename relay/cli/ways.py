"""How `explain` expects a message to go to each upstream: by SMTP or by the provider's HTTP API, and what signs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.cli.common import printable

if TYPE_CHECKING:
    from relay.config.model import Config, Upstream
    from relay.mail.message import Message

_RELAY_ID = "0" * 26
"""in the place of an id, which the message doesn't have"""


def accepted(message: Message, hostname: str) -> bytes:
    """The content as the relay would store it. Raises Unacceptable."""
    from relay.mail.message import prepare

    own = {"trace": b"Received: by otp-relay\r\n", "date": b"Thu, 01 Jan 1970 00:00:00 +0000"}
    return prepare(message, **own, message_id=f"<{_RELAY_ID.lower()}@{hostname}>").content


class Mail(NamedTuple):
    """A message, or one part of it."""

    content: bytes
    """as it was accepted"""
    sender: str
    recipients: tuple[str, ...]
    is_part: bool
    """rules split the message"""
    has_keys: bool
    """the From domain has keys"""


def ways(config: Config, names: Sequence[str], mail: Mail) -> dict[str, Any]:
    """By upstream: `via` (`smtp` or `api`), `why_not_api` (null where it goes by the API, or there is none), and
    `signed`: whether a signature of ours goes along."""
    return {name: _way(config.upstreams[name], config.redirect, mail) for name in names}


def _way(upstream: Upstream, redirect: str | None, mail: Mail) -> dict[str, Any]:
    has_keys = mail.has_keys
    if upstream.via == "smtp":
        return {"via": "smtp", "why_not_api": None, "signed": has_keys}
    reason = _why_not(upstream, redirect, mail)
    if upstream.via == "auto" and reason is not None:
        return {"via": "smtp", "why_not_api": reason, "signed": has_keys}
    return {"via": "api", "why_not_api": reason, "signed": has_keys and reason is None and _signs(upstream)}


def _why_not(upstream: Upstream, redirect: str | None, mail: Mail) -> str | None:
    from relay.mail.original_to import original_to, with_field
    from relay.providers.apis.registry import api_named
    from relay.upstream.http.request import Shipment, why_not

    api, content, addresses = api_named(upstream.api.kind or ""), mail.content, mail.recipients
    if redirect is not None:
        content, addresses = b"".join(with_field([content], original_to(addresses))), (redirect,)
    elif upstream.via == "api" and api.form == "raw":
        addresses = addresses[: api.recipients]  # the others have requests of their own
    leaves_others_out = mail.is_part and upstream.via == "api"
    shipment = Shipment(_RELAY_ID, mail.sender, addresses, redirect, leaves_others_out=leaves_others_out)
    return why_not(content, upstream, shipment)


def _signs(upstream: Upstream) -> bool:
    """Whether what goes by the upstream's API is signed, where there are keys."""
    from relay.upstream.http.upstream import finish_of

    return finish_of(upstream).is_signed


def as_lines(ways: Mapping[str, Any], upstreams: Mapping[str, Upstream]) -> Iterator[str]:
    """A line for each upstream that has an API."""
    bounces = all(way["via"] == "api" and way["why_not_api"] is not None for way in ways.values())
    for name, way in ways.items():
        if upstreams[name].via != "smtp":
            yield printable(f"{name}: {_text(way, upstreams[name], bounces=bounces)}")


def _text(way: Mapping[str, Any], upstream: Upstream, *, bounces: bool) -> str:
    from relay.providers.apis.registry import api_named

    reason = way["why_not_api"]
    if way["via"] == "smtp":
        return f"SMTP, since the API can't carry it: {reason}"
    if reason is not None:
        then = "no other upstream can, so it bounces (5.6.1)" if bounces else "it goes to the next upstream"
        return f"can't carry it: {reason}; {then}"
    api = api_named(upstream.api.kind or "")
    if api.form == "json":
        return "API; it builds the message anew, so no signature of ours"
    if not api.keeps_signature:
        return "API; it takes the message as it is, but may break signatures, so none of ours"
    return f"API; it takes the message as it is, {'with' if way['signed'] else 'without'} a signature of ours"
