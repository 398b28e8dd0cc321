"""Mistakes in parts, HTML and links."""

from __future__ import annotations

import pytest

from relay.mail.lint import lint
from tests.mail.lint.material import FIELDS, HTML, NOW, TEXT, Cases, changed, mail, rules, with_html

LINK = "https://www.example.com/help"
BLANKS = "&#847;&zwnj;&nbsp;&#8199;&shy;\n"
"""as senders of newsletters put them behind a preview text"""
LOGO = '<p><img src="https://www.example.com/logo.png" alt="Acme"></p>\n'


def with_comments(size_bytes: int) -> bytes:
    """The clean mail with about so many bytes of comments at the end of its HTML part."""
    return with_html(f"<!-- {'x' * 90} -->\n" * (size_bytes // 100))


def with_part(kind: str) -> bytes:
    return changed("--b--", f"--b\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--")


def with_link(target: str) -> bytes:
    """The clean mail with its link changed in the HTML part."""
    return changed(f'"{LINK}"', f'"{target}"')


def with_hidden(chars: int, how: str = 'style="display:none"') -> bytes:
    return mail(html=HTML.replace("<p>Hello", f"<div {how}>{'preview ' * (chars // 7)}</div>\n<p>Hello"))


def with_links(number: int) -> bytes:
    return with_html("".join(f'<a href="{LINK}/{one}">Help {one}</a>\n' for one in range(number - 1)))


BAD: Cases = {
    "HTML only": ("no-text", mail(text=None)),
    "a calendar instead of text": ("no-text", changed("text/plain", "text/calendar")),
    "a blank text part": ("empty-text", mail(text=" \n\n")),
    "a PDF": ("attachment", with_part("application/pdf")),
    "a message": ("attachment", with_part("message/rfc822")),
    "HTML of 110,000 bytes": ("clipped", with_comments(110_000)),
    "HTML of 100,000 bytes": ("large-html", with_comments(100_000)),
    "HTML of 50,000 bytes": ("large-html", with_comments(50_000)),
    "three images": ("image-heavy", with_html(LOGO * 3)),
    "an image of one pixel": ("tracking-pixel", with_html(f'<img src="{LINK}" width="1" height="1">')),
    "an image of one pixel by its style": (
        "tracking-pixel",
        with_html(f'<img src="{LINK}" style="height:1px; width: 1px; border:0">'),
    ),
    "a form": ("form", with_html(f'<form action="{LINK}"></form>')),
    "a field of a form": ("form", with_html("<input name=a>")),
    "200 characters hidden by their style": ("hidden-text", with_hidden(200)),
    "200 characters hidden by an attribute": ("hidden-text", with_hidden(200, "hidden")),
    "a shortened link": ("shortener", with_link("https://bit.ly/3xYz")),
    "a shortened link in the text": ("shortener", changed(f"Help: {LINK}", "Help: https://t.co/abc")),
    "a link to a social network": ("social", with_link("https://www.facebook.com/acme")),
    "a link to Telegram": ("social", with_link("https://t.me/acme")),
    "a campaign's parameter": ("marketing-link", with_link(f"{LINK}?a=b&utm_source=mail")),
    "a link that shows another domain": (
        "link-mismatch",
        with_html('<a href="https://www.example.net/">www.example.com</a>'),
    ),
    "a link that shows another address": (
        "link-mismatch",
        with_html('<a href="https://www.example.com/">https://shop.example.org/a</a>'),
    ),
    "a link to another domain": ("foreign-link", with_link("https://click.example.org/x")),
    "a link to another domain in the text": ("foreign-link", changed(f"Help: {LINK}", "Help: https://example.org/")),
    "a link with the sender as its user": ("foreign-link", with_link("https://example.com@evil.example.net/y")),
    "a link to an IP address": ("foreign-link", with_link("https://192.0.2.1/help")),
    "a link to an IPv6 address": ("foreign-link", with_link("https://[2001:db8::1]/help")),
    "an image at another domain": ("foreign-link", with_html(LOGO.replace("example.com", "example.org"))),
    "three links": ("many-links", with_links(3)),
}
FINE = {
    "a link that shows a file's name": with_html('<a href="https://www.example.com/x">readme.md</a>'),
    "text only": mail(html=None),
    "an image as a part": with_part("image/png"),
    "a calendar beside the text": with_part("text/calendar"),
    "HTML of 39,000 bytes": with_comments(39_000),
    "two images": with_html(LOGO * 2),
    "a line of one pixel": with_html('<img src="https://www.example.com/l.png" width="600" height="1">'),
    "a preview text of 100 characters": with_hidden(100),
    "a preview text with blanks behind it": with_html(f"<p hidden>Your code{BLANKS * 99}</p>"),
    "an anchor": with_html('<a href="#top">www.example.org</a>'),
    "an address as link": with_html('<a href="mailto:help@example.com">help@example.com</a>'),
    "a link at a domain below": with_link("https://a.b.example.com/help"),
    "a link at the domain above": changed("no-reply@example.com", "no-reply@auth.example.com"),
    "a link at a host in capitals": with_link("HTTPS://WWW.EXAMPLE.COM/help"),
    "a link with a port": with_link("https://www.example.com:8443/help"),
    "a link that shows a host of its domain": with_html(f'<a href="{LINK}">example.com/help</a>'),
    "a parameter that only looks like a campaign's": with_link(f"{LINK}?from=campaigns&mutm_source=1"),
    "the name of a DTD": mail(
        html='<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1.dtd">\n'
        + HTML
    ),
    "two links": with_links(2),
    "one link three times": with_html(f'<a href="{LINK}">Help</a>' * 2),
}


@pytest.mark.parametrize(
    ("sender", "link", "is_foreign"),
    [
        ("auth.example.com", "example.com", False),
        ("example.com", "deep.below.example.com", False),
        ("example.com", "example.com.", False),
        ("example.co.uk", "www.example.co.uk", False),
        ("example.co.uk", "other.co.uk", True),
        ("example.com", "example.com.evil.example", True),
        ("example.com", "notexample.com", True),
    ],
)
def test_links_are_compared_by_registered_domain(sender: str, link: str, is_foreign: bool) -> None:
    content = mail(
        fields=FIELDS.replace("no-reply@example.com", f"no-reply@{sender}"),
        text=TEXT.replace(LINK, f"https://{link}/"),
        html=None,
    )
    assert rules(content) == ({"foreign-link"} if is_foreign else set())


def test_a_foreign_ip_address_is_shown_whole() -> None:
    [found] = lint(with_link("https://[2001:db8::1]/help"), now=NOW)
    assert "([2001:db8::1])" in found.text


def test_a_link_is_foreign_to_no_sender_without_a_from() -> None:
    content = mail(fields=FIELDS.replace("From: Acme <no-reply@example.com>\n", ""))
    assert rules(content) == {"from"}
