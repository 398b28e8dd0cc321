"""Put the relay's id into a provider's header field, so that its delivery events carry it."""

from __future__ import annotations

import re

from relay.mail.message import parse
from relay.mail.setting import with_field
from relay.providers.base import Provider
from relay.providers.webhook import Field

_FOLDING = re.compile(r"\r?\n(?=[ \t])")


def correlated(content: bytes, provider: Provider, relay_id: str) -> bytes:
    """The content with the id in the provider's field, merged with what the app wrote there. It is left as it is where
    the app's field has no room for it, or can't be read."""
    if provider.correlate is None:
        return content
    message = parse(content)
    if not message.fields:
        return content
    present = [
        Field(field.name, _FOLDING.sub("", field.value.decode("utf-8", "surrogateescape")).strip(" \t"))
        for field in message.fields
    ]
    field = provider.correlate(relay_id, present)
    return content if field is None else with_field(message, field)
