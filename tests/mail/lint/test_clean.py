"""A mail as it should be has no finding, in whatever language."""

from __future__ import annotations

from itertools import product

import pytest

from relay.mail.lint import lint
from tests.mail.codes.material import clean_mails as wordings
from tests.mail.lint.material import CLEAN, HTML, NOW, Encoding, clean_mails, mail, rules

CODES = ["482913", "4829", "482 913"]
ENCODINGS: list[Encoding] = ["base64", "quoted-printable"]


@pytest.mark.parametrize("name", [f"{one.language}{form}" for one, form in product(wordings(), ["", ", HTML"])])
def test_a_clean_mail_has_no_finding_above_hint(name: str) -> None:
    for code, encoding in product(CODES, ENCODINGS):
        content = clean_mails(code, encoding)[name]
        findings = [found for found in lint(content, now=NOW) if found.level != "hint"]
        assert findings == [], (code, encoding)


def test_there_are_clean_mails_in_76_languages() -> None:
    assert len(wordings()) == 76


@pytest.mark.parametrize("encoding", ["8bit", "base64", "quoted-printable"])
@pytest.mark.parametrize("html", [None, HTML], ids=["text", "text and HTML"])
def test_the_mail_that_is_changed_has_no_finding_at_all(html: str | None, encoding: Encoding) -> None:
    assert lint(mail(html=html, encoding=encoding), now=NOW, signed={"example.com"}) == ()


def test_a_unix_file_with_bare_lf_throughout_has_no_finding() -> None:
    assert lint(CLEAN.replace(b"\r\n", b"\n"), now=NOW) == ()


def test_a_mail_in_the_order_html_before_text_has_no_finding() -> None:
    head, text, html = CLEAN.split(b"--b\r\n")
    end = b"--b--\r\n"
    assert rules(b"--b\r\n".join([head, html.removesuffix(end), text + end])) == set()
