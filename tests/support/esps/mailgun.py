"""Mailgun's send API for whole messages: POST /v3/{domain}/messages.mime. Source: documentation.mailgun.com, "Send an
email in MIME format"."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from tests.support.api_script import Reply, Request
from tests.support.esps.reading import (
    address,
    basic,
    check_count,
    check_distinct,
    expect_field,
    expect_post,
    field_value,
    one_line,
)
from tests.support.esps.values import Fault, Mail, new_hex, one_id, read_raw

KEY = "0123456789abcdef0123456789abcdef-01234567-89abcdef"
MOST = 1000
MAX_BYTES = 25 << 20
MAX_VARIABLES_BYTES = 16_384
PATH = re.compile(r"/v3/([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)/messages\.mime")
BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]")
"""RFC 2046 5.1.1"""
SWITCHES = frozenset({"yes", "no", "true", "false", "htmlonly"})
OPTIONS = frozenset({
    "o:dkim", "o:tracking", "o:tracking-clicks", "o:tracking-opens", "o:testmode", "o:require-tls",
    "o:skip-verification",
})  # fmt: skip


class Part(NamedTuple):
    name: str
    filename: str | None
    data: bytes

    @property
    def text(self) -> str:
        try:
            return one_line(self.data.decode("utf-8"), self.name)
        except UnicodeDecodeError as exc:
            raise Fault(f"{self.name} is not UTF-8") from exc


def read(request: Request, *, key: str = KEY) -> Mail:
    """Raises Fault."""
    found = PATH.fullmatch(request.path)
    expect_post(request, request.path if found else "/v3/DOMAIN/messages.mime")
    assert found is not None
    expect_field(request, "authorization", basic("api", key))
    raw: bytes | None = None
    recipients: list[str] = []
    options: dict[str, object] = {"domain": found[1], "o:tag": [], "variables": {}}
    for part in multipart(request):
        if part.name == "message":
            if part.filename is None or raw is not None:
                raise Fault("message is one part, a file: with a filename")
            raw = part.data
        elif part.filename is not None:
            raise Fault(f"{part.name} is a file")
        elif part.name == "to":
            recipients += [address(one.strip(), "to") for one in part.text.split(",")]
        else:
            _option(part, options)
    if raw is None or len(raw) > MAX_BYTES:
        raise Fault("no message, or one beyond 25 MB", 400 if raw is None else 413)
    check_count(recipients, MOST)
    check_distinct(recipients)
    mail = read_raw(raw, recipients, options=options)
    identifier = mail.header("Message-ID") or f"<{new_hex(16)}.{new_hex(16)}@{found[1]}>"
    return read_raw(raw, recipients, options=options, ids=one_id(recipients, identifier))


def _option(part: Part, options: dict[str, object]) -> None:
    """An `o:` or `v:` parameter."""
    value = part.text
    tags, variables = options["o:tag"], options["variables"]
    assert isinstance(tags, list)
    assert isinstance(variables, dict)
    if part.name == "o:tag":
        if not value.isascii() or not 1 <= len(value) <= 128:
            raise Fault("o:tag: 1 to 128 ASCII characters")
        tags.append(value)
    elif part.name.startswith("v:") and part.name not in options:
        variables[part.name[2:]] = value
        if len(json.dumps(variables).encode()) > MAX_VARIABLES_BYTES:
            raise Fault("variables beyond 16 kB")
    elif part.name in OPTIONS and part.name not in options:
        if value not in SWITCHES:
            raise Fault(f"{part.name}={value}")
        options[part.name] = value
    else:
        raise Fault(f"the parameter {part.name} is unknown, or stands twice")


def multipart(request: Request) -> list[Part]:
    """The parts of multipart/form-data, byte for byte (RFC 7578). Raises Fault."""
    content_type = field_value(request, "content-type")
    found = re.fullmatch(r'multipart/form-data; ?boundary=("?)([^"]+)\1', content_type)
    if found is None or not BOUNDARY.fullmatch(found[2]):
        raise Fault(f"Content-Type {content_type}")
    mark = b"--" + found[2].encode("ascii")
    first, *rest = (b"\r\n" + request.body).split(b"\r\n" + mark)
    if first or not rest or rest[-1] not in (b"--", b"--\r\n"):
        raise Fault("the body has something before its first boundary or behind its last")
    return [_part(one) for one in rest[:-1]]


def _part(data: bytes) -> Part:
    head, empty_line, content = data.partition(b"\r\n\r\n")
    if not empty_line or not head.startswith(b"\r\n"):
        raise Fault("a part without an empty line behind its head")
    fields = dict(line.split(": ", 1) for line in head.decode("utf-8").split("\r\n")[1:] if ": " in line)
    disposition = {name.lower(): value for name, value in fields.items()}.get("content-disposition", "")
    found = re.fullmatch(r'form-data; name="([^"]+)"(?:; filename="([^"]*)")?', disposition)
    if found is None:
        raise Fault(f"Content-Disposition {disposition!r}")
    return Part(found[1], found[2], content)


def accept(mail: Mail) -> Reply:
    return Reply(200, {"id": mail.ids[mail.recipients[0]], "message": "Queued. Thank you."})


def magnificent(mail: Mail | None = None) -> Reply:
    """What a wrong path gets: 200, and no mail was sent."""
    return Reply(200, b"Mailgun Magnificent API", [("Content-Type", "text/html; charset=utf-8")])


def limited(mail: Mail, what: str = "request", until: str = "Sun, 29 Nov 2026 13:00:00 GMT") -> Reply:
    """`what`: or `recipient`, `bytes`."""
    return Reply(429, {"message": f"{what} limit exceeded, try again after {until}"})


def error(status: int, text: str) -> Reply:
    if status == 404:
        return magnificent()
    if status == 401:
        return Reply(401, b"Forbidden", [("Content-Type", "text/html; charset=utf-8")])
    return Reply(status, {"message": text})
