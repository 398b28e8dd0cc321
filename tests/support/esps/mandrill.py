"""Mandrill's send API for whole messages: POST /api/1.0/messages/send-raw.json. Source: mailchimp.com/developer,
"Transactional API: Send mime document", and the official client."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

from tests.support.api_script import Reply, Request
from tests.support.esps.reading import address, check_count, expect_post, json_body
from tests.support.esps.values import Fault, Mail, new_hex, read_raw

KEY = "md-0123456789abcdefghijkl"
MOST = 1000
MAX_BYTES = 25 << 20
PATH = re.compile(r"/api/1\.[0-9]/messages/send-raw(\.json)?")
REASONS = frozenset({
    "hard-bounce", "soft-bounce", "spam", "unsub", "custom", "invalid-sender", "invalid", "test-mode-limit",
    "unsigned", "rule",
})  # fmt: skip


def read(request: Request, *, key: str = KEY) -> Mail:
    """The key is in the body. Raises Fault."""
    expect_post(request, request.path if PATH.fullmatch(request.path) else "/api/1.0/messages/send-raw.json")
    body = json_body(request)
    if not hmac.compare_digest(body.need("key").encode(), key.encode()):
        raise Fault("Invalid API key", 401)
    raw = body.need("raw_message").encode()
    recipients = [address(one, "to") for one in body.texts("to")]
    check_count(recipients, MOST)
    if len(raw) > MAX_BYTES:
        raise Fault("a message beyond 25 MB")
    from_email = body.text("from_email")
    options: dict[str, object] = {
        "from_email": None if from_email is None else address(from_email, "from_email"),
        "from_name": body.line("from_name"),
        "async": body.flag("async"),
        "ip_pool": body.text("ip_pool"),
        "return_path_domain": body.text("return_path_domain"),
    }
    body.finish()
    return read_raw(raw, recipients, ids={one: new_hex(32) for one in recipients}, options=options)


def accept(mail: Mail) -> Reply:
    """One state for each recipient: `sent`; with `async`, `queued`."""
    return _states(mail, "queued" if mail.options["async"] else "sent")


def queued(mail: Mail, reason: str = "hourly-quota") -> Reply:
    """Beyond the hourly quota: 200, but the mail waits for the next hour."""
    return _states(mail, "queued", queued_reason=reason)


def rejected(mail: Mail, reasons: Mapping[str, str]) -> Reply:
    """200, though the recipients in `reasons` don't get it. `invalid` is a state of its own."""
    assert set(reasons.values()) <= REASONS
    return _states(mail, "sent", rejected=reasons)


def _states(
    mail: Mail, status: str, *, rejected: Mapping[str, str] | None = None, queued_reason: str | None = None
) -> Reply:
    states = []
    for one in mail.recipients:
        reason = (rejected or {}).get(one)
        state: dict[str, object] = {"email": one, "status": status, "_id": mail.ids[one], "reject_reason": None}
        if queued_reason is not None:
            state["queued_reason"] = queued_reason
        if reason == "invalid":
            state = {"email": one, "status": "invalid"}
        elif reason is not None:
            state |= {"status": "rejected", "reject_reason": reason}
        states.append(state)
    return Reply(200, states)


def refuse(name: str, text: str, code: int = -2) -> Reply:
    """`name`: `Invalid_Key` (code -1), `PaymentRequired`, `ValidationError`, `ServiceUnavailable`, ..."""
    return Reply(500, {"status": "error", "code": code, "name": name, "message": text})


def error(status: int, text: str) -> Reply:
    return refuse("Invalid_Key", text, -1) if status == 401 else refuse("ValidationError", text)
