"""Which bodies a JSON API can carry, and what they are in its terms."""

from __future__ import annotations

import pytest

from relay.mail.rebuilding import rebuilt
from relay.providers.api import Attachment
from tests.mail.test_rebuilding import (
    ALTERNATIVE,
    FILE,
    HEAD,
    HTML_PART,
    MIXED,
    PLAIN_PART,
    why_not,
    with_file,
    with_text,
)

END = b"--b--\r\n"
NESTED = (
    b"--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n"
    + (PLAIN_PART + HTML_PART + END).replace(b"--b", b"--c")
    + b"\r\n"
)
PART = b"Content-Type: text/plain; charset=utf-8\r\n"
Q = b"\nContent-Transfer-Encoding: quoted-printable"
B = b"\nContent-Transfer-Encoding: base64"


@pytest.mark.parametrize(
    ("fields", "body", "text"),
    [
        (b"X-A: b", b"a\r\n\r\n b \r\n", "a\n\n b \n"),
        (b"Content-Type: text/plain", b"a", "a"),
        (b"Content-Type: Text/Plain ; Charset=UTF-8 ;", "ä\t\r\n".encode(), "ä\t\n"),
        (b'Content-Type: text/plain; charset="iso-8859-1"; format=Fixed', b"\xe4", "ä"),
        (b"Content-Type: text/plain; charset*=us-ascii'en'utf-8", "ä".encode(), "ä"),
        (b"Content-Type: text/plain; charset=windows-1252", b"\x80", "€"),
        (b"Content-Type: text/plain; charset=iso-2022-jp", b"\x1b$B$3\x1b(B", "こ"),
        (b"Content-Type: text/plain; charset=utf-8" + Q, b"a=C3=a4 =3D=\r\n b=\r\n", "aä = b"),
        (b"Content-Type: text/plain; charset=utf-8" + Q, b"a=20\r\nb", "a \nb"),
        (b"Content-Type: text/plain; charset=utf-8" + B, b"w6Q\r\nKw6\r\n Q=\r\n", "ä\nä"),
        (b"Content-Type: text/plain; charset=utf-8" + B.upper(), b"YQ0KYg==", "a\nb"),
        (b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8BIT", b"\xc3\xa4", "ä"),
    ],
)
def test_a_text_and_an_html_text_are_decoded(fields: bytes, body: bytes, text: str) -> None:
    found = rebuilt(with_text(fields, body))
    assert (found.text, found.html, found.attachments) == (text, None, ())
    if b"ext/" in fields:
        found = rebuilt(with_text(fields.replace(b"ext/plain", b"ext/html").replace(b"ext/Plain", b"ext/HTML"), body))
        assert (found.text, found.html, found.attachments) == (None, text, ())


@pytest.mark.parametrize(
    ("fields", "body", "reason"),
    [
        (b"Content-Type: text/plain; charset=no-such", b"a", "charset"),
        (b"Content-Type: text/plain; charset=base64", b"YQ==", "charset"),
        (b"Content-Type: text/plain", "ä".encode(), "declared charset"),
        (b"X-A: b", "ä".encode(), "declared charset"),
        (b"Content-Type: text/plain; charset=utf-8", b"\xff", "declared charset"),
        (b"Content-Type: text/plain; charset=iso-8859-1", b"it\x92s", "control character"),
        (b"Content-Type: text/plain; charset=utf-16" + B, b"/v8AYQ==", "NUL"),
        (b"Content-Type: text/plain; charset=utf-7", b"+2AA-", "control character"),
        (b"X-A: b" + B, b"YQBi", "NUL"),
        (b"X-A: b" + B, b"YQ1i", "control character"),
        (b"X-A: b" + B, b"YQ", "base64"),
        (b"X-A: b" + B, b"YQ==YQ==", "base64"),
        (b"X-A: b" + B, b"Y*Q==", "base64"),
        (b"X-A: b" + Q, b"a=4", "quoted-printable"),
        (b"X-A: b" + Q, b"a=", "quoted-printable"),
        (b"X-A: b" + Q, b"a=XY", "quoted-printable"),
        (b"X-A: b" + Q, b"a \r\n", "quoted-printable"),
        (b"X-A: b" + Q, b"a= \r\nb", "quoted-printable"),
        (b"X-A: b" + Q, b"a\xff", "quoted-printable"),
        (b"Content-Transfer-Encoding: x-uuencode", b"a", "transfer encoding"),
        (b"Content-Transfer-Encoding: 7bit (x)", b"a", "transfer encoding"),
        (b"Content-Type: text/plain; format=flowed", b"a", "flowed"),
        (b"Content-Type: text/plain; delsp=yes", b"a", "flowed"),
        (b"Content-Type: text/plain; name=a.txt", b"a", "unknown parameters"),
        (b"Content-Type: text/plain; charset=utf-8; charset=utf-8", b"a", "twice"),
        (b"Content-Type: text/plain; charset*0=utf; charset*00=-8", b"a", "malformed"),
        (b"Content-Type: text/plain; charset", b"a", "malformed"),
        (b"Content-Type: text/plain (x)", b"a", "malformed"),
        (b'Content-Type: text/plain; charset="utf-8', b"a", "malformed"),
        (b"Content-Type: ", b"a", "malformed"),
        (b"Content-Type: text", b"a", "neither text nor HTML"),
        (b"Content-Disposition: attachment", b"a", "attachment"),
        (b"Content-Disposition: inline; filename=a.txt", b"a", "attachment"),
        (b"Content-Type: text/calendar; method=REQUEST", b"a", "calendar"),
        (b"Content-Type: message/rfc822", b"a", "within the message"),
        (b"Content-Type: application/pdf", b"a", "neither text nor HTML"),
        (b"Content-Type: multipart/signed; boundary=b", PLAIN_PART + END, "signature"),
        (b"Content-Type: multipart/encrypted; boundary=b", PLAIN_PART + END, "encrypted"),
        (b"Content-Type: multipart/report; boundary=b", PLAIN_PART + END, "report"),
        (b"Content-Type: multipart/related; boundary=b", PLAIN_PART + END, "inline"),
        (b"Content-Type: multipart/digest; boundary=b", PLAIN_PART + END, "neither text nor HTML"),
        (b"Content-Type: text/html", b" \r\n\t\r\n", "no text"),
    ],
)
def test_a_body_that_an_api_would_change_is_not_carried(fields: bytes, body: bytes, reason: str) -> None:
    assert reason in why_not(with_text(fields, body))


@pytest.mark.parametrize(
    ("content", "text", "html"),
    [
        (ALTERNATIVE + PLAIN_PART + HTML_PART + END, "text", "<p>html</p>"),
        (ALTERNATIVE + b"\r\n \r\n" + PLAIN_PART + HTML_PART + END + b"\r\n\t\r\n", "text", "<p>html</p>"),
        (ALTERNATIVE + PLAIN_PART + HTML_PART + b"--b--", "text", "<p>html</p>"),
        (ALTERNATIVE + b"--b\r\n\r\ntext\r\n\r\n" + HTML_PART + END, "text\n", "<p>html</p>"),
        (ALTERNATIVE + b"--b \t\r\nContent-Type: text/plain\r\n\r\n" + HTML_PART + END, "", "<p>html</p>"),
        (MIXED + PLAIN_PART + END, "text", None),
        (MIXED + HTML_PART + END, None, "<p>html</p>"),
        (MIXED + NESTED + END, "text", "<p>html</p>"),
        (
            b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; charset=utf-8;\r\n boundary="b"\r\n'
            b"Content-Transfer-Encoding: 8bit\r\n\r\n" + PLAIN_PART + END,
            "text",
            None,
        ),
        (
            MIXED + b"--b\r\nContent-Disposition: inline\r\nContent-Language: en\r\nContent-Description: x\r\n"
            b"MIME-Version: 1.0\r\n" + PART + b"\r\ntext\r\n" + END,
            "text",
            None,
        ),
    ],
)
def test_a_multipart_is_taken_apart(content: bytes, text: str | None, html: str | None) -> None:
    found = rebuilt(HEAD + content)
    assert (found.text, found.html, found.attachments) == (text, html, ())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"Content-Type: multipart/mixed\r\n\r\n" + PLAIN_PART + END, "boundary"),
        (b'Content-Type: multipart/mixed; boundary=" "\r\n\r\n' + PLAIN_PART + END, "boundary"),
        (b"Content-Type: multipart/mixed; boundary=b; type=x\r\n\r\n" + PLAIN_PART + END, "unknown parameters"),
        (b"Content-Transfer-Encoding: base64\r\n" + MIXED + PLAIN_PART + END, "encoding of its own"),
        (MIXED, "without parts"),
        (MIXED + b"text\r\n", "without parts"),
        (MIXED + END, "without parts"),
        (MIXED + PLAIN_PART, "cut short"),
        (MIXED + PLAIN_PART + HTML_PART[:30], "cut short"),
        (MIXED + b"preamble " * 30 + b"\r\n" + PLAIN_PART + END, "before the first part"),
        (MIXED + PLAIN_PART + END + b"epilogue\r\n", "behind the last part"),
        (MIXED + PLAIN_PART + END + PLAIN_PART, "behind the last part"),
        (MIXED + b"--b\r\ntext\r\n" + END, "no blank line"),
        (MIXED + b"--b\r\nContent-Type: text/plain\r\nX y\r\n\r\nx\r\n" + END, "no field"),
        (MIXED + b"--b\r\n" + PART * 2 + b"\r\nx\r\n" + END, "more than one field content-type"),
        (MIXED + b"--b\r\nX-Other: 1\r\n" + PART + b"\r\nx\r\n" + END, "a field x-other"),
        (ALTERNATIVE + HTML_PART + PLAIN_PART + END, "alternatives"),
        (ALTERNATIVE + PLAIN_PART + END, "alternatives"),
        (ALTERNATIVE + PLAIN_PART + HTML_PART * 2 + END, "alternatives"),
        (ALTERNATIVE + PLAIN_PART + HTML_PART.replace(b"html;", b"calendar;") + END, "alternatives"),
        (ALTERNATIVE + NESTED + HTML_PART + END, "alternatives"),
        (MIXED + NESTED.replace(b"alternative", b"mixed") + END, "neither text nor HTML"),
        (MIXED + NESTED.replace(b"alternative", b"related") + END, "inline"),
        (MIXED + PLAIN_PART + NESTED + END, "parts within parts"),
        (MIXED + NESTED.replace(b"--c--", b"") + END, "cut short"),
        (MIXED + PLAIN_PART + HTML_PART + END, "neither the text nor a named attachment"),
        (MIXED + b"--b\r\n" + FILE + b"\r\nx\r\n" + PLAIN_PART + END, "neither text nor HTML"),
        (ALTERNATIVE + b"--b\r\n\r\n\r\n" + b"--b\r\nContent-Type: text/html\r\n\r\n\r\n" + END, "no text"),
    ],
)
def test_a_multipart_that_an_api_would_change_is_not_carried(content: bytes, reason: str) -> None:
    assert reason in why_not(HEAD + content)


def disposition(parameters: str) -> bytes:
    return f"Content-Type: application/pdf\r\nContent-Disposition: attachment; {parameters}\r\n".encode()


@pytest.mark.parametrize(
    ("fields", "filename", "kind"),
    [
        (FILE, "a.pdf", "application/pdf"),
        (b"Content-Type: application/PDF; name=a.pdf\r\n", "a.pdf", "application/pdf"),
        (b"Content-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment\r\n", "a.pdf",
         "application/pdf"),
        (b"Content-Type: image/png; name=b.png\r\nContent-Disposition: ATTACHMENT; filename=a.png; size=1\r\n", "a.png",
         "image/png"),
        (b"Content-Disposition: attachment; filename=a.txt\r\n", "a.txt", "text/plain"),
        (b"Content-Type: text/csv; charset=UTF-8\r\nContent-Disposition: attachment; filename=a\r\n", "a", "text/csv"),
        (FILE + b"Content-Description: x\r\nContent-Length: 1\r\nX-Attachment-Id: f_1\r\nContent-MD5: x\r\n", "a.pdf",
         "application/pdf"),
        (disposition(r'filename="a \"b\"; c.pdf"'), 'a "b"; c.pdf', "application/pdf"),
        (disposition('filename="ü.pdf"'), "ü.pdf", "application/pdf"),
        (disposition("filename=ü.pdf"), "ü.pdf", "application/pdf"),
        (disposition('filename="=?utf-8?b?w7w=?= =?utf-8?q?.pdf?="'), "ü.pdf", "application/pdf"),
        (disposition("filename*=utf-8''%C3%BC%20.pdf"), "ü .pdf", "application/pdf"),
        (disposition("filename*=iso-8859-1'de'%FC.pdf"), "ü.pdf", "application/pdf"),
        (disposition("filename*=''a.pdf"), "a.pdf", "application/pdf"),
        (disposition("filename=u.pdf; FileName*=utf-8''%C3%BC.pdf"), "ü.pdf", "application/pdf"),
        (disposition("filename*1*=%BC; filename*0*=utf-8''a%C3;\r\n\tfilename*2=\"%41.pdf\""), "aü%41.pdf",
         "application/pdf"),
        (disposition('filename*0="a b"; filename*1=.pdf'), "a b.pdf", "application/pdf"),
    ],
)  # fmt: skip
def test_an_attachment_is_taken_apart(fields: bytes, filename: str, kind: str) -> None:
    found = rebuilt(with_file(fields))
    assert found.text == "text"
    assert found.attachments == (Attachment(filename, kind, b"x"),)


def test_attachments_are_decoded_and_stay_in_order() -> None:
    encoded = FILE + b"Content-Transfer-Encoding: base64\r\n\r\nAAEC\r\n/w==\r\n"
    other = FILE.replace(b"a.pdf", b"b.pdf") + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=00=FF\r\n"
    empty = FILE.replace(b"a.pdf", b"c.pdf") + b"\r\n"
    content = HEAD + MIXED + NESTED + b"--b\r\n" + encoded + b"--b\r\n" + other + b"--b\r\n" + empty + END
    assert [(one.filename, one.data) for one in rebuilt(content).attachments] == [
        ("a.pdf", b"\0\1\2\xff"),
        ("b.pdf", b"\0\xff"),
        ("c.pdf", b""),
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (b"Content-Type: application/pdf\r\n", "named attachment"),
        (b"Content-Type: application/pdf\r\nContent-Disposition: attachment\r\n", "named attachment"),
        (b"Content-Type: text/plain; name=a.txt\r\n", "named attachment"),
        (b"Content-Type: application; name=a.txt\r\n", "named attachment"),
        (b"Content-Type: image/png; name=a\r\nContent-Disposition: inline\r\n", "inline"),
        (b"Content-Type: image/png\r\nContent-Disposition: inline; filename=a\r\n", "inline"),
        (FILE + b"Content-ID: <1@x>\r\n", "Content-ID"),
        (FILE + b"Content-Location: x\r\n", "a field content-location"),
        (disposition("filename=a; handling=required"), "unknown disposition"),
        (disposition("handling=required; filename*=utf-8''a"), "unknown disposition"),
        (disposition("filename=a") + b"Content-Transfer-Encoding: x\r\n", "transfer encoding"),
        (FILE.replace(b"application/pdf", b"text/calendar"), "calendar"),
        (FILE.replace(b"application/pdf", b"message/rfc822"), "within the message"),
        (FILE.replace(b"application/pdf", b"message/partial"), "parts within parts"),
        (FILE.replace(b"application/pdf", b"multipart/mixed; boundary=c"), "parts within parts"),
        (FILE.replace(b"application/pdf", b"application/pkcs7-signature"), "signature"),
        (FILE.replace(b"application/pdf", b"application/x; smime-type=x"), "unknown parameters"),
        (FILE.replace(b"application/pdf", b"text/plain; charset=iso-8859-1"), "can't name"),
        (disposition("filename=a b.pdf"), "malformed"),
        (disposition("filename=a; filename=b"), "twice"),
        (disposition("filename*=utf-8''a; filename*0*=utf-8''b"), "twice"),
        (disposition("filename*=a.pdf"), "broken parameter"),
        (disposition("filename*=utf-8''%C"), "broken parameter"),
        (disposition("filename*=utf-8''ü"), "broken parameter"),
        (disposition("filename*=utf-8''%FF"), "declared charset"),
        (disposition("filename*=no-such''a"), "charset"),
        (disposition("filename*=utf-8''a%0D%0Ab"), "control character"),
        (disposition("filename*0=a; filename*2=b"), "broken parameter"),
        (disposition("filename*1=a"), "broken parameter"),
        (disposition("filename*x=a"), "malformed"),
        (disposition('filename="=?utf-8?q?=FF?="'), "declared charset"),
        (disposition('filename="a\x01"'), "control character"),
        (disposition('filename=""'), "named attachment"),
    ],
)
def test_an_attachment_that_an_api_would_change_is_not_carried(fields: bytes, reason: str) -> None:
    assert reason in why_not(with_file(fields))


def test_a_line_before_the_first_part_which_readers_ignore_is_no_hindrance() -> None:
    found = rebuilt(HEAD + MIXED + b"This is a multi-part message in MIME format.\r\n\r\n" + PLAIN_PART + END)
    assert found.text is not None
