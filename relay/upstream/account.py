"""Replies that speak of the account rather than of the mail."""

from __future__ import annotations

from collections.abc import Sequence

from relay.mail.reply import Reply
from relay.providers import registry
from relay.upstream.results import Result

ACCOUNT_CODES = frozenset({530, 535, 538})
"""RFC 4954 6: authentication is required, has failed, or is too weak."""


def is_account_error(reply: Reply) -> bool:
    """Whether a permanent reply is about the account or its senders: it condemns the upstream, and bounces nothing."""
    return reply.code in ACCOUNT_CODES or registry.is_account_error(reply.text)


def credential_failure(results: Sequence[Result]) -> Result | None:
    """The result whose reply says that the credentials are no good; None where a recipient was accepted all the
    same."""
    if any(result.outcome == "sent" for result in results):
        return None
    return next((result for result in results if result.reply.code in ACCOUNT_CODES), None)
