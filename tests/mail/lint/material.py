"""Mails for the tests of lint: one without any finding, changes of it, and a clean one in each language."""

from __future__ import annotations

import base64
import quopri
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cache
from html import escape
from typing import Literal

from relay.mail.header_text import encoded
from relay.mail.lint import lint
from tests.mail.codes.material import clean_mails as wordings

Encoding = Literal["8bit", "base64", "quoted-printable"]
Cases = Mapping[str, tuple[str, bytes]]
"""by what is wrong: the rule, and a mail that has this one finding"""

NOW = 1_740_819_907.0
CODE = "482913"


def date(age_s: float) -> str:
    """A Date value so many seconds before NOW."""
    return format_datetime(datetime.fromtimestamp(NOW - age_s, UTC))


FIELDS = f"""\
From: Acme <no-reply@example.com>
To: user@example.net
Subject: Your Acme sign-in code
Date: {date(0)}
Message-ID: <1@app.example.org>
Auto-Submitted: auto-generated
MIME-Version: 1.0
"""
TEXT = f"""\
Hello,
Use this code to sign in to Acme:
{CODE}
The code is valid for 10 minutes.
If you didn't ask for this code, ignore this mail.
Help: https://www.example.com/help
Acme, Köln
"""
HTML = f"""\
<html xmlns="http://www.w3.org/1999/xhtml" lang="en"><body>
<p>Hello,</p>
<p>Use this code to sign in to Acme:</p>
<p>{CODE}</p>
<p>The code is valid for 10 minutes.</p>
<p>If you didn't ask for this code, ignore this mail.</p>
<p><a href="https://www.example.com/help">Help</a></p>
<p>Acme, Köln</p>
</body></html>
"""


def mail(
    *, fields: str = FIELDS, text: str | None = TEXT, html: str | None = HTML, encoding: Encoding = "8bit"
) -> bytes:
    """A mail of one part, or of two as multipart/alternative."""
    parts = [_part(kind, body, encoding) for kind, body in (("plain", text), ("html", html)) if body is not None]
    if len(parts) == 1:
        return _crlf(fields) + parts[0]
    fences = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
    return _crlf(fields) + b"Content-Type: multipart/alternative; boundary=b\r\n\r\n" + fences + b"--b--\r\n"


def _part(kind: str, body: str, encoding: Encoding) -> bytes:
    data = _crlf(body)
    if encoding == "base64":
        data = base64.encodebytes(data).replace(b"\n", b"\r\n")
    elif encoding == "quoted-printable":
        data = quopri.encodestring(data)
    head = f"Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + data


def _crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


CLEAN = mail()


def changed(old: str, new: str, content: bytes = CLEAN) -> bytes:
    """The mail with each `old`, in all its parts, replaced."""
    assert old.encode() in content
    return content.replace(old.encode(), new.encode())


def with_subject(subject: str) -> bytes:
    return changed("Your Acme sign-in code", subject)


def with_field(field: str) -> bytes:
    return changed("MIME-Version", f"{field}\r\nMIME-Version")


def with_html(more: str) -> bytes:
    """The clean mail with more at the end of its HTML part."""
    return mail(html=HTML.replace("</body>", f"{more}</body>"))


def rules(content: bytes, *, signed: Collection[str] | None = None) -> set[str]:
    """The names of the findings."""
    return {finding.rule for finding in lint(content, now=NOW, signed=signed)}


@cache
def clean_mails(code: str = CODE, encoding: Encoding = "base64") -> dict[str, bytes]:
    """The mail of each language, as text and as text with HTML: `de` and `de, HTML`."""
    mails = {}
    for wording in wordings():
        language, lines = wording.language, [wording.filled(line, code) for line in wording.lines]
        subject = encoded(wording.subject).decode()
        fields = FIELDS.replace("Your Acme sign-in code", subject.replace("\r\n", "\n"))
        text = "\n\n".join([*lines, ""])
        paragraphs = "".join(f"<p>{escape(line).replace(chr(10), '<br>')}</p>\n" for line in lines)
        html = f'<html lang="{language}"><body>\n{paragraphs}</body></html>\n'
        mails[language] = mail(fields=fields, text=text, html=None, encoding=encoding)
        mails[f"{language}, HTML"] = mail(fields=fields, text=text, html=html, encoding=encoding)
    return mails
