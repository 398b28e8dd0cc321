"""What SMTP would refuse, as HTTP says it."""

from __future__ import annotations

import pytest

from relay.intake import replies
from relay.intake.idempotency import BAD_KEY
from relay.intake.types import Reason, Refused
from relay.mail.reply import Reply
from relay.policy.check import FULL
from relay.service.sending import not_sent


@pytest.mark.parametrize(
    ("code", "text", "reason", "wait_s", "answer"),
    [
        (450, "4.7.1 limit per_client of lane otp: try again in 30 s", "limit", 30, (429, "limited", 30)),
        (451, "4.3.0 a request with this key is being processed", "idempotency", 1, (409, "idempotency_key", 1)),
        (554, "5.6.0 this key was used for another message", "idempotency", None, (409, "idempotency_key", None)),
        (BAD_KEY.code, BAD_KEY.text, "idempotency", None, (422, "idempotency_key", None)),
        (FULL.code, FULL.text, "busy", None, (503, "unavailable", None)),
        (421, replies.SHUTTING_DOWN.text, "busy", None, (503, "unavailable", None)),
        (451, replies.TROUBLE.text, "store", None, (503, "unavailable", None)),
        (550, "5.7.1 x@evil.example may not be in From here", "sender", None, (422, "sender_not_allowed", None)),
        (550, "5.7.1 suppressed: 5.1.1", "suppressed", None, (422, "suppressed", None)),
        (554, "5.4.6 too many hops", "policy", None, (422, "refused", None)),
    ],
)
def test_a_refusal_keeps_its_meaning(
    code: int, text: str, reason: Reason, wait_s: int | None, answer: tuple[int, str, int | None]
) -> None:
    found = not_sent(Refused(Reply(code, text), reason, retry_after_s=wait_s))
    assert (found.status, found.code, found.retry_after_s) == answer
    assert found.message == text[6:]
