"""Mistakes in header fields."""

from __future__ import annotations

import pytest

from tests.mail.lint.material import CLEAN, FIELDS, Cases, changed, date, mail, rules, with_field

FROM = "Acme <no-reply@example.com>"
DATE = date(0)


def without(name: str) -> bytes:
    """The clean mail without that field."""
    kept = [line for line in FIELDS.splitlines(keepends=True) if not line.startswith(f"{name}:")]
    assert len(kept) == FIELDS.count("\n") - 1
    return mail(fields="".join(kept))


BAD: Cases = {
    "no From": ("from", without("From")),
    "a From without an address": ("from", changed(FROM, "Acme")),
    "an empty From": ("from", changed(FROM, "")),
    "Reply-To at another domain": ("identities", with_field("Reply-To: help@example.org")),
    "Sender at another domain": ("identities", with_field("Sender: bounce@example.org")),
    "two authors": ("identities", changed(FROM, "a@example.com, b@example.com")),
    "two recipients": ("recipients", changed("user@example.net", "a@example.net, b@example.net")),
    "a copy to another": ("recipients", with_field("Cc: other@example.net")),
    "a sender at Gmail": ("free-mail", changed("example.com", "gmail.com")),
    "a sender at GMX, in capitals": ("free-mail", changed("example.com", "GMX.de")),
    "a sender at a private name": ("no-domain", changed("example.com", "acme.internal")),
    "a sender at localhost": ("no-domain", changed("example.com", "localhost")),
    "no Date": ("date", without("Date")),
    "a Date in words": ("date-unreadable", changed(DATE, "yesterday")),
    "an empty Date": ("date-unreadable", changed(DATE, "")),
    "a Date of a month that isn't one": ("date-unreadable", changed(DATE, "Sat, 01 Foo 2025 09:05:07 +0000")),
    "a Date in ISO form": ("date-unreadable", changed(DATE, "2025-03-01T09:05:07Z")),
    "a Date 11 minutes ahead": ("date-off", changed(DATE, date(-660))),
    "a Date a week ahead": ("date-off", changed(DATE, date(-604_800))),
    "a Date two hours old": ("date-off", changed(DATE, date(7_200))),
    "a Date 23 hours old": ("date-off", changed(DATE, date(23 * 3_600))),
    "a Date of another time zone": ("date-off", changed(DATE, DATE.replace("+0000", "+0200"))),
    "no Message-ID": ("message-id", without("Message-ID")),
    "a Message-ID at localhost": ("message-id-host", changed("1@app.example.org", "1@localhost")),
    "a Message-ID at a name of a local network": ("message-id-host", changed("app.example.org", "web1.local")),
    "a Message-ID at a container": ("message-id-host", changed("app.example.org", "3f2c9a7b1d4e")),
    "a Message-ID at an IP address": ("message-id-host", changed("app.example.org", "[192.0.2.1]")),
    "a Message-ID without a host": ("message-id-host", changed("<1@app.example.org>", "<1>")),
    "no Auto-Submitted": ("auto-submitted", without("Auto-Submitted")),
    "a link to unsubscribe": ("list-unsubscribe", with_field("List-Unsubscribe: <https://www.example.com/u>")),
    "Precedence: bulk": ("precedence", with_field("Precedence: bulk")),
    "Precedence: LIST": ("precedence", with_field("Precedence: LIST")),
    "Precedence: junk": ("precedence", with_field("Precedence: junk")),
}
FINE = {
    "Reply-To at a domain below": with_field("Reply-To: help@mail.example.com"),
    "Reply-To at the domain above": changed(
        "no-reply@example.com", "no-reply@auth.example.com", with_field("Reply-To: help@example.com")
    ),
    "an encoded name of the sender": changed("Acme <", "=?utf-8?q?Acme_K=C3=B6ln?= <"),
    "a copy to the recipient": with_field("Cc: USER@example.net"),
    "a hidden copy": with_field("Bcc: other@example.net"),
    "a recipient with a comma in the name": changed("user@example.net", '"Doe, Jane" <user@example.net>'),
    "a sender below a domain with free mail's name": changed("example.com", "gmail.com.example"),
    "a Date 9 minutes ahead": changed(DATE, date(-540)),
    "a Date 50 minutes old": changed(DATE, date(3_000)),
    "a Date 25 hours old": changed(DATE, date(25 * 3_600)),
    "a Date 3 days old": changed(DATE, date(3 * 86_400)),
    "a Date in another zone": changed(DATE, "Sat, 01 Mar 2025 10:05:07 +0100 (CET)"),
    "a Date without a zone": changed(DATE, DATE.replace("+0000", "-0000")),
    "Precedence: first-class": with_field("Precedence: first-class"),
    "Auto-Submitted with another value": changed("auto-generated", "auto-replied"),
}


SIGNED = [
    ("no domain is known", None, set()),
    ("no domain is signed", (), {"no-key"}),
    ("the domain is signed", ("example.com",), set()),
    ("another domain is signed", ("example.org",), {"no-key"}),
    ("a domain below is signed", ("auth.example.com",), {"no-key"}),
]


@pytest.mark.parametrize(("name", "signed", "expected"), SIGNED, ids=[name for name, *_ in SIGNED])
def test_a_domain_without_a_key_has_one_finding(name: str, signed: tuple[str, ...] | None, expected: set[str]) -> None:
    assert rules(CLEAN, signed=signed) == expected


def test_a_key_of_a_domain_covers_the_domains_below() -> None:
    below = changed("no-reply@example.com", "no-reply@auth.example.com")
    assert rules(below, signed={"example.com"}) == set()
    assert rules(below, signed={"xample.com"}) == {"no-key"}


def test_a_domain_that_cannot_be_signed_has_no_finding_about_its_key() -> None:
    assert rules(changed("example.com", "gmail.com"), signed=()) == {"free-mail"}
    assert rules(changed("example.com", "acme.internal"), signed=()) == {"no-domain"}


def test_two_from_fields_with_two_authors_have_both_findings() -> None:
    assert rules(b"From: other@example.com\r\n" + CLEAN) == {"twice", "identities"}
