"""SparkPost's send API with a whole message: POST /api/v1/transmissions. Source: developers.sparkpost.com,
"Transmissions" and "Errors"."""

from __future__ import annotations

import json

from tests.support.api_script import Reply, Request
from tests.support.esps.reading import (
    Fields,
    address,
    check_count,
    expect_field,
    expect_post,
    json_body,
)
from tests.support.esps.values import Fault, Mail, new_number, one_id, read_raw

KEY = "0123456789abcdef0123456789abcdef01234567"
MOST = 10_000
MAX_BYTES = 20 << 20
MAX_METADATA_BYTES = 10_000
OPTIONS = ("transactional", "open_tracking", "click_tracking", "perform_substitutions", "sandbox", "skip_suppression")


def read(request: Request, *, key: str = KEY) -> Mail:
    """Raises Fault."""
    expect_post(request, "/api/v1/transmissions/" if request.path.endswith("/") else "/api/v1/transmissions")
    expect_field(request, "authorization", key)
    body = json_body(request)
    settings = body.nested("options")
    options: dict[str, object] = {}
    if settings is not None:
        options = {name: settings.flag(name) for name in OPTIONS}
        options["ip_pool"] = settings.text("ip_pool")
        settings.finish()
    recipients = [_recipient(one) for one in body.objects("recipients")]
    check_count(recipients, MOST)
    options["metadata"] = _metadata(body)
    options["campaign_id"] = body.text("campaign_id")
    if len(str(options["campaign_id"] or "").encode()) > 64:
        raise Fault("campaign_id beyond 64 bytes", 422)
    return_path = body.text("return_path")
    options["return_path"] = None if return_path is None else address(return_path, "return_path")
    content = body.need_nested("content")
    raw = content.need("email_rfc822").encode()
    content.finish()
    body.finish()
    _check_substitution(raw, options.get("perform_substitutions"))
    if len(raw) > MAX_BYTES:
        raise Fault("a message beyond 20 MB", 422)
    return read_raw(raw, recipients, ids=one_id(recipients, str(new_number())), options=options)


def _recipient(fields: Fields) -> str:
    inner = fields.need_nested("address")
    found = address(inner.take("email"), "email")
    inner.line("name")
    inner.line("header_to")
    inner.finish()
    fields.finish()
    return found


def _metadata(body: Fields) -> dict[str, str]:
    metadata = body.mapping("metadata")
    if len(json.dumps(metadata).encode()) > MAX_METADATA_BYTES:
        raise Fault("metadata beyond 10 kB", 422)
    return metadata


def _check_substitution(raw: bytes, substitutes: object) -> None:
    """In the header `{{` is substituted whatever `perform_substitutions` says."""
    header = raw.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    if b"{{" in (header if substitutes is False else raw):
        raise Fault("{{ would be substituted", 422)


def accept(mail: Mail) -> Reply:
    return rejected(mail, 0)


def rejected(mail: Mail, count: int) -> Reply:
    """200, though so many recipients were rejected. Which ones, the answer doesn't say."""
    results = {
        "total_rejected_recipients": count,
        "total_accepted_recipients": len(mail.recipients) - count,
        "id": mail.ids[mail.recipients[0]],
    }
    return Reply(200, {"results": results})


def error(status: int, text: str, code: str | None = None) -> Reply:
    """`code`: SparkPost's own; 1502 is temporary. 420: beyond the quota; 429: a pause of 1 to 5 s; 504: may be sent."""
    one = {"message": text, **({"code": code, "description": text} if code is not None else {})}
    return Reply(status, {"errors": [one]})
