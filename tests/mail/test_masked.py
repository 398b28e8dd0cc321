"""The masked copy of a code's mail: what it keeps, and that the code is nowhere in it."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.masked import MOST_LOOKED_AT_BYTES, masked
from relay.mail.message import parse


def copy_of(content: bytes, *, is_whole: bool = True) -> EmailMessage:
    made = masked(parse(content), is_whole=is_whole)
    assert made.endswith(b"\r\n")
    assert b"\n" not in made.replace(b"\r\n", b"")
    found = email.message_from_bytes(made, policy=email.policy.SMTP.clone(utf8=True))
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


def mail(subject: str, text: str | None = None, html: str | None = None, name: str = "") -> bytes:
    made = EmailMessage(policy=email.policy.SMTP)
    made["From"] = f"{name} <no-reply@auth.example.com>" if name else "no-reply@auth.example.com"
    made["To"] = "Person <person17@example.net>, other@example.org"
    made["Subject"] = subject
    made["Message-ID"] = "<one@app.example.com>"
    made["Date"] = "Sat, 01 Mar 2025 09:05:07 +0000"
    made["X-Code"] = "481516"
    if text is not None:
        made.set_content(text)
    if html is not None:
        (made.add_alternative if text is not None else made.set_content)(html, subtype="html")
    made.add_attachment(b"481516", "image", "png", filename="481516.png")
    return made.as_bytes()


def test_it_has_the_envelope_of_the_letter_and_its_text_without_code_and_link() -> None:
    text = "Hello Ada,\n\nyour code is 481516.\nOr: https://app.example.com/in/481516?t=abcdef#x\n\n- Example\n"
    copy = copy_of(mail("481516 is your code", text, "<p>481516</p>", name="481516"))
    assert (copy["From"], copy["To"]) == ("no-reply@auth.example.com", "person17@example.net, other@example.org")
    assert (copy["Message-ID"], copy["Subject"]) == ("<one@app.example.com>", "•••••• is your code")
    assert copy["Date"] is not None
    assert (copy["X-Code"], copy.get_content_type()) == (None, "text/plain")
    note, blank, *rest = copy.get_content().splitlines()
    assert "Codes are masked" in note
    assert (blank, rest[:1]) == ("", ["Hello Ada,"])
    assert "https://app.example.com/…" in rest[3]
    assert "your code is ••••••." in rest


@pytest.mark.parametrize(
    "html",
    [
        "<p>Your code</p><b>4</b><b>8</b><b>1</b><b>5</b><b>1</b><b>6</b>",
        "<style>a{}</style><p>Your code:</p><h1>&#52;81&#8203;516</h1>",
        "<p>Your code is here</p><td>4815</td><td>16</td>",
        "<p>Your code is</p><b>4</b><b>8</b><b>1</b>516 and nothing else",
    ],
)
def test_no_digit_of_a_code_in_pieces_of_html_stays(html: str) -> None:
    text = copy_of(mail("Sign in", html=html)).get_content()
    assert "Your code" in text
    assert not set("481516") & set(text)


@given(
    st.text("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789", min_size=4, max_size=10),
    st.sampled_from(
        ["Your code: {}", "Here it is.\n\n  {}\n\nBye.", "*{}*", "Use {} as code.", "https://a.example/{}"]
    ),
)
def test_a_code_of_any_kind_on_a_line_of_its_own_in_a_link_or_behind_a_colon_is_hidden(code: str, text: str) -> None:
    if text.startswith("Use") and code.isalpha():
        code += "7"  # letters amid a sentence are a word
    if text.startswith("Your") and code.isalpha():
        code = code.upper()
    note, _, shown = copy_of(mail("Sign in", text.format(code))).get_content().partition("\n")
    assert "masked" in note
    assert code not in shown.replace("a.example", "")


@pytest.mark.parametrize("size", [MOST_LOOKED_AT_BYTES, 3_000_000])
def test_a_large_mail_is_copied_without_its_text(size: int) -> None:
    content = mail("your code 481516", "code 481516\n" * (size // 12))
    copy = copy_of(content)
    assert "is left out" in copy.get_content()
    assert "481516" not in copy.as_string()
    head = copy_of(content[:2_000], is_whole=False)
    assert "is left out" in head.get_content()
    assert head["From"] == "no-reply@auth.example.com"


def test_a_cut_text_ends_before_a_code_that_it_would_cut() -> None:
    for at in range(8_100, 8_240):
        text = copy_of(mail("x", ("x " * 4_200)[:at] + " 481516 " + "x " * 300)).get_content()
        assert not set("481516") & set(text)


@given(st.binary(max_size=400))
def test_any_bytes_have_a_copy(data: bytes) -> None:
    made = masked(parse(data.replace(b"\0", b"")), is_whole=True)
    assert parse(made).fields[-1].name == "content-transfer-encoding"
