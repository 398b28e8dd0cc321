"""The reason of an ESP's event, fit to be stored, shown and posted."""

from __future__ import annotations

import re

from relay.mail.codes.masking import MASK
from relay.mail.redact import redact_reply

# What a code can look like: 4 to 10 letters and digits with a digit among them, or two groups of three digits. Reply
# codes (550), enhanced codes (5.1.1), host names and addresses are none.
_CODE = re.compile(
    r"(?<![\w.@/:-])(?:(?=[a-z]*[0-9])[a-z0-9]{4,10}|[0-9]{3}[ -][0-9]{3})(?![\w@/-]|\.[\w])", re.IGNORECASE | re.ASCII
)


def shown_reason(text: str | None) -> str | None:
    """One line without credentials, and without anything that can be a code: an ESP may quote the mail."""
    if not text:
        return None
    return _CODE.sub(MASK, redact_reply(text)) or None
