"""Check `http`: what can be reached from other machines needs a token."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relay.config.errors import Diagnostic, Loc, note
from relay.config.masking import shown
from relay.config.model import Http
from relay.config.network import is_private


def check(loc: Loc, http: Http) -> Iterator[Diagnostic]:
    """All but the patterns in `senders` and the collisions of addresses."""
    if not is_private(http.address) and http.token is None:
        yield Diagnostic((*loc, "address"), f"{shown(str(http.address))} isn't loopback: set http.token")
    where = http.send_address
    if where is not None and not is_private(where) and http.send_token is None:
        yield Diagnostic((*loc, "send_address"), f"{shown(str(where))} isn't loopback: set http.send_token")
    if http.send_token is None:
        return
    text = http.send_token.get_secret_value()
    # What an Authorization header can't carry never matches.
    if not re.fullmatch(r"[!-~]+", text):
        yield Diagnostic((*loc, _key(http)), "expected printable ASCII characters without blanks")
    elif http.token is not None and http.token.get_secret_value() == text:
        yield note((*loc, _key(http)), "is the same as token, so a client that may send mail may do everything")


def _key(http: Http) -> str:
    return "send_token" if http.send_token_file is None else "send_token_file"
