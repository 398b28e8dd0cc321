"""What the rules look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

Headers = Sequence[tuple[str, str | bytes]]
"""name (lower case) and value of each field, in the order of the message; raw values are decoded when a rule asks for
them"""


class Facts(NamedTuple):
    """A message, as far as a rule can ask.

    `sender` is '' for the null sender. `client` is the peer's IP address, or any other word (`unix`, `local`) for one
    that has none. `headers` may be a function: it is called at most once, and only if a rule asks for a header.
    `listener` is the address the message came in by, as the configuration writes it; `listener_lane` the lane it pins.
    """

    sender: str
    from_addresses: Sequence[str]
    recipients: Sequence[str]
    client: str
    subject: str
    headers: Headers | Callable[[], Headers]
    listener: str
    listener_lane: str | None = None
    priority: int | None = None
