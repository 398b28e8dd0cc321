"""Check `http`: what can be reached from other machines needs a token."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from relay.config.errors import Diagnostic, Loc, note
from relay.config.masking import shown
from relay.config.model import Http
from relay.config.network import is_private

_POWERS: Mapping[str, str] = {
    "token": "do everything",
    "read_token": "read everything",
    "send_token": "send mail",
}
"""what a client may do with each token"""


def check(loc: Loc, http: Http) -> Iterator[Diagnostic]:
    """All but the patterns in `senders` and the collisions of addresses."""
    if not is_private(http.address) and http.token is None:
        yield Diagnostic((*loc, "address"), f"{shown(str(http.address))} isn't loopback: set http.token")
    where = http.send_address
    if where is not None and not is_private(where) and http.send_token is None:
        yield Diagnostic((*loc, "send_address"), f"{shown(str(where))} isn't loopback: set http.send_token")
    yield from _tokens(loc, http)


def _tokens(loc: Loc, http: Http) -> Iterator[Diagnostic]:
    earlier: dict[str, str] = {}
    for name in _POWERS:
        secret = getattr(http, name)
        if secret is None:
            continue
        text = secret.get_secret_value()
        where = (*loc, name if getattr(http, f"{name}_file") is None else f"{name}_file")
        # What an Authorization header can't carry never matches.
        if not re.fullmatch(r"[!-~]+", text):
            yield Diagnostic(where, "expected printable ASCII characters without blanks")
        elif (same := earlier.setdefault(text, name)) != name:
            yield note(where, f"is the same as {same}, so a client that may {_POWERS[name]} may {_POWERS[same]}")
