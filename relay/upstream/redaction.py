"""Removes credentials from upstreams' replies: some quote the command that they refuse."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

from relay.config.model import Upstream
from relay.mail.codes.masking import MASK
from relay.mail.redact import redact_reply
from relay.mail.reply import Reply

HIDDEN = "***"
_SHORT = 4
"""A credential shorter than this is not looked for: it would be found everywhere."""
_PIECE = re.compile(r"[^\s<>()\[\]\"',;:]{8,}")
_MECHANISM = re.compile(
    r"(\b(?:(?:AUTH|PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|CRAM-MD5|SCRAM-SHA-[\w-]+)\b[\s:=]*)*"
    r"\b(?:PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|CRAM-MD5|SCRAM-SHA-[\w-]+)\b[\s:=]+)\S+"
)
_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")


def without_credentials(text: str, upstream: Upstream, more: Iterable[str] = ()) -> str:
    """A reply without the credentials that were sent: whole or in pieces, in clear or in base64, in any case. `more`:
    other secrets than the user name and the password."""
    user = upstream.username or ""
    secret = upstream.password.get_secret_value() if upstream.password is not None else ""
    secrets = {secret, _base64(secret), _base64(f"\0{user}\0{secret}")} if secret else set()
    secrets |= {form for one in more for form in (one, _base64(one))}
    for form in sorted({user, _base64(user), *secrets}, key=len, reverse=True):
        if len(form) >= _SHORT:
            text = re.sub(re.escape(form), HIDDEN, text, flags=re.IGNORECASE)
    quoted = [form.casefold() for form in secrets]
    return _PIECE.sub(lambda found: HIDDEN if any(found[0].casefold() in form for form in quoted) else found[0], text)


def reply_for_operators(reply: Reply) -> str:
    """A reply that operators may read: one line, bounded like a stored reply, without what follows the name of an AUTH
    mechanism and without what looks like base64. If it may quote a mail, call `redact_reply` with the mail before."""
    enhanced = reply.enhanced or ""
    text = redact_reply(reply.text.removeprefix(enhanced))
    text = _MECHANISM.sub(rf"\g<1>{MASK}", text)
    text = _TOKEN.sub(lambda found: MASK if _looks_encoded(found[0]) else found[0], text)
    return " ".join(filter(None, (str(reply.code), enhanced, text.strip())))


def _looks_encoded(token: str) -> bool:
    """As `AHJlbGF5` or `aGVsbG8=`: a word has no capitals inside, no digits among its letters and no `=` at its end."""
    inner = token[1:]
    mixed = inner != inner.lower() and token != token.upper()
    return token.endswith("=") or mixed or (any(map(str.isdigit, token)) and any(map(str.isalpha, token)))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii").rstrip("=")
