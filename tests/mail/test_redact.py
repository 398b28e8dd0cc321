"""Codes and credentials are hidden in subjects and replies."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.codes.masking import MASK
from relay.mail.redact import MAX_REPLY, redact, redact_reply

HIDDEN = [
    ("Your verification code: 123456", f"Your verification code: {MASK}"),
    ("123456 is your code", f"{MASK} is your code"),
    ("1234", MASK),
    ("1234567890123456", MASK),
    ("Code 123 456", f"Code {MASK}"),
    ("Code 123-456", f"Code {MASK}"),
    ("Code 12 34 56", f"Code {MASK}"),
    ("Code 1.2.3.4", f"Code {MASK}"),
    ("Code 1 - 2 - 3 - 4", f"Code {MASK}"),
    ("Code 12\u200b34\u00a056", f"Code {MASK}"),
    ("G-123456 is your Google verification code", f"{MASK} is your Google verification code"),
    ("A1B2C3 is your OTP", f"{MASK} is your OTP"),
    ("Use ABCD-1234 to sign in", f"Use {MASK} to sign in"),
    ("Sign in with a1b2", f"Sign in with {MASK}"),
    ("Your code is QWERTY", f"Your code is {MASK}"),
    ("QWERTY is your Acme code", f"{MASK} is your Acme code"),
    ("[QWERTY] Your login code", f"[{MASK}] Your login code"),
    ("QWERTY: your code", f"{MASK}: your code"),
    ("Confirmation code: ABC-DEF", f"Confirmation code: {MASK}"),
    ("Ihr Sicherheitscode: kqzvtb", f"Ihr Sicherheitscode: {MASK}"),
    ("kqzvtb is your code", f"{MASK} is your code"),
    ("Your code is kQzvTb", f"Your code is {MASK}"),
    ('Your code is "kqzvtb"', f'Your code is "{MASK}"'),
    ("Your code is ABC 123", f"Your code is {MASK}"),
    ("Your code is 7F 3K 9Q", f"Your code is {MASK}"),
    ("Din kode er WXYZ", f"Din kode er {MASK}"),
    ("Tu código es WXYZ", f"Tu código es {MASK}"),
    ("Il tuo codice è WXYZ", f"Il tuo codice è {MASK}"),
    ("Votre code est WXYZ", f"Votre code est {MASK}"),
    ("Twój kod to WXYZ", f"Twój kod to {MASK}"),
    ("Ваш код: ABCDEF", f"Ваш код: {MASK}"),
    ("Ваш код: ЖЩЫЪ", f"Ваш код: {MASK}"),
    ("您的验证码是AB12CD，请勿泄露", f"您的验证码是{MASK}，请勿泄露"),
    ("验证码123456请勿泄露", f"验证码{MASK}请勿泄露"),
    ("認証コード：１２３４５６", f"認証コード：{MASK}"),
    ("رمز التحقق ١٢٣٤٥٦", f"رمز التحقق {MASK}"),
    ("Code ①②③④⑤⑥", f"Code {MASK}"),
    ("Code ¹²³⁴", f"Code {MASK}"),
    ("Code 1️⃣2️⃣3️⃣4️⃣", f"Code {MASK}"),
    ("PIN 𝟏𝟐𝟑𝟒", f"PIN {MASK}"),
]


@pytest.mark.parametrize(("text", "shown"), HIDDEN)
def test_a_code_is_hidden_and_the_words_around_it_stay(text: str, shown: str) -> None:
    assert redact(text) == shown


KEPT = [
    "",
    "Your verification code",
    "Your code is ready",
    "This is your code",
    "Here is your 2FA code",
    "Your PIN was changed",
    "IKEA verification code",
    "Your login code - Netflix",
    "Welcome to Acme, please confirm your address",
    "Rechnung 10 vom 3. Mai",
    "HELLO and goodbye",
    "Your 24-hour pass",
    "Ihr Bestätigungscode für Acme",
    "Code for GitHub",
    "Passwort zurücksetzen",
    "验证码请勿泄露",
]


@pytest.mark.parametrize("text", KEPT)
def test_ordinary_words_stay(text: str) -> None:
    assert redact(text) == text


def digits_joined(text: str) -> str:
    return re.sub(r"[\W_]", "", text)


def longest_run_of_digits(text: str) -> int:
    """Digits of any Unicode kind, with only non-letters between them."""
    return max(
        (len(run) for run in re.split(r"d+", "".join("1" if sign.isdigit() else "d" for sign in text))), default=0
    )


signs = st.one_of(
    st.characters(codec="utf-8"),
    st.sampled_from("0123456789"),
    st.sampled_from(" -.\u00a0\u200b_/:"),
    st.sampled_from([chr(point) for point in range(0x20000) if chr(point).isdigit()]),
)
subjects = st.one_of(st.text(signs, max_size=60), st.text(signs, max_size=30).map(lambda text: f"Your code: {text}"))


@given(subjects)
def test_no_four_digits_survive_whatever_stands_between_them(text: str) -> None:
    assert longest_run_of_digits(digits_joined(redact(text))) < 4


@given(
    st.text("0123456789", min_size=4, max_size=10),
    st.sampled_from(["", " ", "-", "\u00a0", ".", "  ", " - "]),
    st.sampled_from(["Your code: {}", "{} is your code", "Use {} now", "({})", "Ihr Code lautet {}.", "コード{}です"]),
)
def test_a_numeric_code_in_any_form_is_hidden(code: str, between: str, sentence: str) -> None:
    assert code not in digits_joined(redact(sentence.format(between.join(code))))


@given(
    st.text("ABCDEFGHJKMNPQRSTUVWXYZ23456789", min_size=4, max_size=10).filter(
        lambda code: any(map(str.isdigit, code)) and any(map(str.isalpha, code))
    ),
    st.sampled_from(["Your code: {}", "{} is your code", "Use {} now", "[{}] Acme"]),
)
def test_a_code_of_letters_and_digits_is_hidden(code: str, sentence: str) -> None:
    assert code not in redact(sentence.format(code))


@given(subjects)
def test_redacting_again_changes_nothing_that_matters(text: str) -> None:
    once = redact(text)
    assert len(re.findall(r"\d", redact(once))) <= len(re.findall(r"\d", once))


@pytest.mark.parametrize(
    "piece",
    [
        " ",
        "1 ",
        "1a ",
        "code ",
        "code is a",
        "code",
        "code:",
        "A ",
        "AAAA-",
        "a-",
        "A1 ",
        "code is ",
        "code -",
        "_",
        "1" + " " * 50,
    ],
)
def test_a_hostile_subject_takes_linear_time(piece: str) -> None:
    # The suite's time-out ends a quadratic one, which would take minutes.
    text = "code " + piece * (100_000 // len(piece))
    redact(text)
    redact(text + "x")


REPLIES = [
    ("250 2.0.0 OK 1234", "250 2.0.0 OK 1234"),
    ("250 Ok 0100018c1f3d9b0e-6d1b0f3e-7a10-4cbb-8a43-9d8f7d2c1a2b-000000",) * 2,
    ("550 5.1.1 no\r\nsuch\x00user\x1b[31m", "550 5.1.1 no such user [31m"),
    ("535 5.7.8 AUTH PLAIN AHVzZXIAcGFzc3dvcmQ= failed", f"535 5.7.8 AUTH PLAIN {MASK} failed"),
    ("535 Bearer abc.def-ghi_123 expired", f"535 Bearer {MASK} expired"),
    ("535 bad password: hunter2hunter2", f"535 bad password: {MASK}"),
    ("334 VXNlcm5hbWU6dXNlcm5hbWU=", f"334 {MASK}"),
    ("250 AUTH LOGIN PLAIN", "250 AUTH LOGIN PLAIN"),
    ("530 5.7.0 Must issue a STARTTLS command first", "530 5.7.0 Must issue a STARTTLS command first"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "kept"), REPLIES)
def test_a_reply_keeps_its_words_and_loses_credentials_and_controls(text: str, kept: str) -> None:
    assert redact_reply(text) == kept


@given(
    st.one_of(st.text(max_size=100), st.text("a0+/=", min_size=400, max_size=3000), st.text("a b\r\n", max_size=3000))
)
def test_a_kept_reply_is_one_short_line(text: str) -> None:
    kept = redact_reply(text)
    assert len(kept) <= MAX_REPLY
    assert kept.isprintable() or any(unicodedata.category(sign) in ("Cf", "Zs", "Cn", "Co") for sign in kept)
    assert "\n" not in kept
    assert "\r" not in kept
    assert not re.search(r"[A-Za-z0-9+/]{48}", kept)


QUOTED = b"Subject: =?utf-8?q?482913_is_your_code?=\r\nTo: user1234@example.net\r\nX: AB-77\r\n\r\nOr 555-0199.\r\n"


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        ("554 5.7.1 spam: '482913 is your code'", f"554 5.7.1 spam: '{MASK} is your code'"),
        ("550 5.7.1 no 555-0199 here, AB-77", f"550 5.7.1 no {MASK} here, {MASK}"),
        ("550 5.1.1 <user1234@example.net>: unknown, q123456", "550 5.1.1 <user1234@example.net>: unknown, q123456"),
        ("554 5.7.1 see https://mx.example/2913", "554 5.7.1 see https://mx.example/2913"),
    ],
)
def test_a_refusals_quotation_of_the_message_is_hidden_where_it_may_be_a_code(reply: str, kept: str) -> None:
    assert redact_reply(reply, QUOTED) == kept


def test_an_acceptance_keeps_its_id() -> None:
    assert redact_reply("250 2.0.0 Ok: queued as 482913") == "250 2.0.0 Ok: queued as 482913"
