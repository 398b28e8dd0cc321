"""What rules can match: the facts about a message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from relay.mail.codes.examination import Examination

Headers = Sequence[tuple[str, str | bytes]]
"""name (lower case) and value of each field, in the message's order; raw values are decoded when a rule needs them"""


class Facts(NamedTuple):
    """`sender` is '' for the null sender. `client` is the peer's IP address, or a word such as `unix` or `local`.

    `headers` may be a function: it is called at most once, and only if a rule needs a header. `listener` is the
    listener's address as the configuration writes it, `listener_lane` the lane that it pins.
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
    user: str | None = None
    """that logged in, where the listener verifies that"""
    named_lane: str | None = None
    """the lane that the request names"""
    examination: Examination | None = None
    """of the content; None: there is no content to examine, and it counts as `other`"""
