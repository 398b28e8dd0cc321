"""Addresses of the SMTP dialogue, their providers, and xtext."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.address import domain_of, parse_path, xtext_decode, xtext_encode
from relay.mail.mailbox_provider import KNOWN_PROVIDERS, provider, provider_label

PATHS = [
    ("<a@b.example>", "a@b.example", ""),
    ("<a@b.example> SIZE=10 BODY=8BITMIME", "a@b.example", "SIZE=10 BODY=8BITMIME"),
    (" <a@b.example>", "a@b.example", ""),
    ("<>", "", ""),
    ("<> RET=HDRS", "", "RET=HDRS"),
    ("a@b.example", "a@b.example", ""),
    ("a@b.example SIZE=1", "a@b.example", "SIZE=1"),
    ("<Postmaster>", "Postmaster", ""),
    ("<@r.example,@s.example:a@b.example>", "a@b.example", ""),
    ('<"a b"@c.example>', '"a b"@c.example', ""),
    ('<"a\\"b"@c.example>', '"a\\"b"@c.example', ""),
    ("<a..b.@docomo.ne.jp>", "a..b.@docomo.ne.jp", ""),
    ("<a+tag=x@b>", "a+tag=x@b", ""),
    ("<a@sub_domain.b.example>", "a@sub_domain.b.example", ""),
    ("<a@[192.0.2.1]>", "a@[192.0.2.1]", ""),
    ("<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", ""),
    ("<a@[x400:c=de]>", "a@[x400:c=de]", ""),
    ("<ü@münchen.example>", "ü@münchen.example", ""),
    (f"<{'a' * 245}@b.exampl>", f"{'a' * 245}@b.exampl", ""),
]


@pytest.mark.parametrize(("text", "mailbox", "rest"), PATHS)
def test_a_path_gives_its_mailbox_and_the_parameters_behind(text: str, mailbox: str, rest: str) -> None:
    assert parse_path(text) == (mailbox, rest)


NO_PATHS = [
    "", " ", "<", "<a@b", "a", "<a>", "<@b>", "<a@>", "<a@b>SIZE=1", "<a b@c>", "<a@b c>", "< a@b>", "<a@b >",
    "<a@b>c@d>", "<a<b@c>", '<"a>b"@c>', "<a\r@b>", "<a@b\r\n>", "<a\0@b>", "<a\x7f@b>", "<a@b@c>", "<a@b..c>",
    "<a@.b>", "<a@b.>", "<a@-b>", "<a@b->", "<a@[999.1.1.1]>", "<a@[IPv6:zz]>", "<a@[nonsense]>", "<a@[1.2.3.4>",
    '<"a@b>', '<a"b@c>', "<a\u2028b@c>", "<a@b\u202e>", "<a\u3000b@c>", "<\ud800@b>", "<@r.example a@b>",
    f"<{'a' * 250}@b.example>", f"<{'ü' * 124}@b.example>", f"<a@{'b' * 64}.example>",
    "a@[x:y>z]", "a@[x:y<z]", "<a@[x:y<z]>", "a@[IPv6:fe80::1%x>y]",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_PATHS)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_path(text)


_ODD = st.text(alphabet='<>@ab.\r\n\0 "\\[]:,;ü\u202e', max_size=20)


@given(_ODD | _ODD.map("a@[x:{}]".format) | _ODD.map("a@[IPv6:fe80::1%{}]".format))
def test_an_accepted_mailbox_can_stand_in_a_command(text: str) -> None:
    try:
        mailbox, _ = parse_path(text)
    except ValueError:
        return
    assert not set(mailbox) & set("<>\r\n\0\u202e")
    assert parse_path(f"<{mailbox}> X=1") == (mailbox, "X=1")


PROVIDERS = [
    ("a@Gmail.com", "gmail", "gmail"),
    ("a@googlemail.com", "gmail", "gmail"),
    ("a@hotmail.co.uk", "outlook", "outlook"),
    ("a@live.nl", "outlook", "outlook"),
    ("a@msn.com", "outlook", "outlook"),
    ("a@ymail.com", "yahoo", "yahoo"),
    ("a@yahoo.de", "yahoo", "yahoo"),
    ("a@yahoo.co.jp", "yahoo.co.jp", "other"),
    ("a@me.com", "icloud", "icloud"),
    ("a@aol.de", "aol", "aol"),
    ("a@gmx.de", "gmx", "gmx"),
    ("a@web.de", "webde", "webde"),
    ("a@pm.me", "proton", "proton"),
    ("a@zohomail.eu", "zoho", "zoho"),
    ("a@fastmail.fm", "fastmail", "fastmail"),
    ("a@bk.ru", "mailru", "mailru"),
    ("a@ya.ru", "yandex", "yandex"),
    ("a@foxmail.com", "qq", "qq"),
    ("a@126.com", "netease", "netease"),
    ("a@naver.com", "naver", "naver"),
    ("a@t-online.de", "t-online.de", "other"),
    ("a@EXAMPLE.com", "example.com", "other"),
    ("a@gmail.com.evil.example", "gmail.com.evil.example", "other"),
    ("postmaster", "", "other"),
]


@pytest.mark.parametrize(("address", "name", "label"), PROVIDERS)
def test_each_domain_of_a_mailbox_provider_counts_for_its_name(address: str, name: str, label: str) -> None:
    assert provider(address) == name
    assert provider_label(provider(address)) == label


def test_the_known_providers_are_those_of_the_reference() -> None:
    named = "gmail outlook yahoo icloud aol gmx webde proton zoho fastmail mailru yandex qq netease naver"
    assert set(named.split()) == KNOWN_PROVIDERS
    assert {provider_label(name) for name in KNOWN_PROVIDERS} == KNOWN_PROVIDERS


def test_the_main_domain_that_older_store_files_have_counts_for_the_name() -> None:
    assert [provider_label(old) for old in ("gmail.com", "gmx.net", "mail.ru")] == ["gmail", "gmx", "mailru"]


def test_domains_are_lower_case() -> None:
    assert domain_of('"a@b"@C.Example') == "c.example"


XTEXT = [("a+b=c", "a+2Bb+3Dc"), ("a b", "a+20b"), ("ü", "+C3+BC"), ("", ""), ("QQ314159", "QQ314159")]


@pytest.mark.parametrize(("text", "encoded"), XTEXT)
def test_xtext_is_written_and_read(text: str, encoded: str) -> None:
    assert xtext_encode(text) == encoded
    assert xtext_decode(encoded) == text


@given(st.text().filter(str.isprintable))
def test_xtext_reads_back_whatever_was_written(text: str) -> None:
    encoded = xtext_encode(text)
    assert encoded.isascii()
    assert not set(encoded) & set(" =\r\n")
    assert xtext_decode(encoded) == text


@pytest.mark.parametrize("text", ["a b", "a=b", "+2b", "+4", "a+", "ü", "a+0D+0Ab", "+00", "a\r\n"])
def test_what_is_no_xtext_or_hides_a_line_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        xtext_decode(text)
