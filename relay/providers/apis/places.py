"""Recipients that an ESP refuses by their place in the request: `to.0`, `bcc[1].email`."""

from __future__ import annotations

import re
from collections.abc import Collection

from relay.providers.api import ApiMail, Found, Verdict, same

_PLACE = re.compile(r"(to|cc|bcc)(?:\.(\d{1,4})|\[(\d{1,4})\])(?:\.\w+)?", re.ASCII | re.IGNORECASE)


def at_place(mail: ApiMail, place: object) -> str | None:
    """The recipient at that place of a JSON request. None: the text is no place, or the place is empty."""
    found = _PLACE.fullmatch(place) if isinstance(place, str) else None
    if found is None or mail.rebuilt is None:
        return None
    lists = {
        "to": [one.address for one in mail.rebuilt.to],
        "cc": [one.address for one in mail.rebuilt.cc],
        "bcc": list(mail.bcc),
    }
    addresses, number = lists[found[1].lower()], int(found[2] or found[3])
    return addresses[number] if number < len(addresses) else None


def refused(mail: ApiMail, gone: Collection[str], found: Found) -> Verdict:
    """`found` for the recipients in `gone`. The others weren't refused, but this request carried them nowhere."""
    names = {same(one) for one in gone}
    rest = Found("unavailable", found.text)
    return Verdict(tuple(found if same(one) in names else rest for one in mail.recipients))
