"""The detector knows a code's mail in every language that it has words for, and what only looks like one."""

from __future__ import annotations

import json
from importlib import resources
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.codes.detector import NO_TOKEN
from relay.mail.codes.examination import Examination
from relay.mail.codes.shapes import searchable
from relay.mail.message import parse
from relay.mail.redact import redact
from tests.mail.codes.material import CleanMail, Transfer, clean_mails, mail, verdict
from tests.mail.material import any_content

CODES = ["482913", "4821", "48219307", "482 913", "482-913", "7FK2QX", "kQ7zP4"]


@pytest.mark.parametrize("one", clean_mails(), ids=lambda one: one.language)
def test_a_code_is_known_in_each_language_and_form(one: CleanMail) -> None:
    for code, kind in product(CODES, ("plain", "html")):
        found = verdict(mail(one.subject, one.text(code) if kind == "plain" else one.html(code), kind))
        assert (found.content, found.code) == ("otp", code.replace(" ", "").replace("-", "")), (code, kind)


@pytest.mark.parametrize("one", clean_mails(), ids=lambda one: one.language)
def test_a_mail_that_only_speaks_of_a_code_is_other(one: CleanMail) -> None:
    text = one.text("{code}").replace("{code}", "")
    assert verdict(mail(one.subject, text)).content == "other"


@pytest.mark.parametrize("one", clean_mails(), ids=lambda one: one.language)
def test_the_reasons_name_a_language_and_never_the_code(one: CleanMail) -> None:
    found = verdict(mail(one.subject, one.text("482913")))
    reasons = "; ".join(found.explain())
    assert "the word for code in " in reasons
    assert "482913" not in reasons
    assert "482913" not in repr(found)


ENCODED: list[tuple[str, str, Transfer]] = [
    ("de", "iso-8859-1", "quoted-printable"), ("de", "iso-8859-1", "8bit"), ("pl", "iso-8859-2", "base64"),
    ("ru", "koi8-r", "8bit"), ("uk", "windows-1251", "base64"), ("el", "iso-8859-7", "quoted-printable"),
    ("tr", "iso-8859-9", "8bit"), ("ja", "iso-2022-jp", "7bit"), ("ja", "shift_jis", "base64"),
    ("ko", "euc-kr", "8bit"), ("zh-Hans", "gb18030", "base64"), ("zh-Hant", "big5", "8bit"),
    ("he", "windows-1255", "base64"), ("ar", "windows-1256", "8bit"), ("th", "tis-620", "quoted-printable"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "charset", "transfer"), ENCODED)
def test_any_charset_is_read(language: str, charset: str, transfer: Transfer) -> None:
    one = next(each for each in clean_mails() if each.language == language)
    text = one.text("482913").encode(charset, "ignore").decode(charset)
    assert verdict(mail(one.subject, text, charset=charset, transfer=transfer)).content == "otp"


WRITTEN = [
    ("Login", "Your code: １２３４５６"),
    ("رمز التحقق", "رمز التحقق الخاص بك هو ١٢٣٤٥٦"),
    ("Your code", "1 2 3 4 5 6"),
    ("Your code", "1\n2\n3\n4\n5\n6"),
    ("Your code", "12\u200b34\u200b56"),
    ("Your code", "1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣"),
    ("验证码", "您的验证码是123456，请勿泄露"),
    ("登录", "【Acme】验证码：123456，5分钟内有效。"),
    ("Login", "Your code is 123456,5 minutes left."),
    ("123456 is your Acme code", "Someone tried to sign in to Acme."),
]


@pytest.mark.parametrize(("subject", "text"), WRITTEN)
def test_a_code_is_known_however_its_digits_are_written(subject: str, text: str) -> None:
    found = verdict(mail(subject, text))
    assert (found.content, found.code) == ("otp", "123456")


IN_HTML = [
    "<p>Your code is <b>123456</b></p>",
    "<p>Your code</p><table><tr><td>1</td><td>2</td><td>3</td><td>4</td><td>5</td><td>6</td></tr></table>",
    "<p>Your code: <span>1</span><span>2</span><span>3</span><span>4</span><span>5</span><span>6</span></p>",
    "<p>Your code: &#49;&#x32;3&#52;5&#x36;</p>",
    "<p>Your&nbsp;code:&nbsp;123<span style='display:none'>999</span>456</p>",
    "<style>.a{color:#482913}</style><title>999999</title><!-- code 888888 --><p>Your code: 123456</p>",
    "<p>Your code:<p style='font-size:0'>Order 999999</p><h1>123456",
]


@pytest.mark.parametrize("html", IN_HTML)
def test_html_is_read_as_its_reader_sees_it(html: str) -> None:
    found = verdict(mail("Sign in", html, "html"))
    assert (found.content, found.code) == ("otp", "123456")


LOOK_ALIKES = [
    ("Order 482913 confirmed", "Thank you for your order 482913. Total: 49.80 EUR."),
    ("[Ticket #48291] Login does not work", "We received your request 48291 and will answer soon."),
    ("Your voucher", "Use the discount code SAVE2024 at checkout and get 20 % off."),
    ("Invoice 2026-4821", "Please pay invoice 4821 by 2026-12-15."),
    ("Your parcel is on its way", "Tracking number 00340434161094, pick-up code for locker 17: 4821."),
    (
        "Reset your password",
        "Follow this link: https://app.example.com/reset/482913/a1b2c3d4 It is valid for 10 minutes.",
    ),
    ("Your account", "Your user name is anna. Your temporary password is xK4pQ9zL. Please change it."),
    ("Two-factor authentication enabled", "Two-factor authentication was enabled on 2026-11-29 at 14:05."),
    ("New sign-in", "New sign-in from 203.0.113.77 on 29.11.2026. If this wasn't you, change your password."),
    ("Call us", "Our telephone number is +49 30 1234567."),
    ("Ihre Bestellung 482913", "Vielen Dank für Ihre Bestellung 482913 vom 29.11.2026. Gesamtbetrag: 49,80 €."),
    ("Votre commande", "Merci pour votre commande n° 482913. Numéro de client : 77120."),
    ("您的订单", "您的订单号 482913 已发货，快递单号 99887766。"),
    ("Ваш заказ", "Ваш заказ № 482913 принят. Сумма: 4 980 ₽."),
    ("Re: your code", "It doesn't work.\n\n> Your verification code is 482913.\n> It is valid for 10 minutes."),
    ("A ride on us", "Use code RIDE4821 for 20% off your next ride."),
    ("Your parcel", "Your pickup code is 4821. Show it at the counter."),
    ("Meeting", "Dial in: +1 555 0100, meeting ID 123456789."),
    ("Newsletter", "Our postal code is 10115. Founded in 1998."),
]


@pytest.mark.parametrize(("subject", "text"), LOOK_ALIKES)
def test_what_only_looks_like_a_code_is_other(subject: str, text: str) -> None:
    assert verdict(mail(subject, text)).content == "other"


def test_a_mail_without_any_token_is_other_and_says_so() -> None:
    found = verdict(mail("Hello", "How are you?"))
    assert (found.content, found.score, found.code) == ("other", NO_TOKEN, None)
    assert found.explain() == ("no code-shaped token",)


def test_the_order_words_beside_a_token_are_named() -> None:
    reasons = verdict(mail("Order 482913", "Thank you for your order 482913.")).explain()
    assert any("order words" in reason and reason.startswith("against it") for reason in reasons)


def test_the_text_behind_64_kb_is_not_looked_at() -> None:
    text = "Your code is 482913."
    filling = "Lorem ipsum dolor sit amet.\n" * 2_400
    assert verdict(mail("Hello", text + "\n" + filling, transfer="7bit")).content == "otp"
    assert verdict(mail("Hello", filling + text, transfer="7bit")).content == "other"


def test_a_part_that_the_64th_kb_cuts_is_read_up_to_there() -> None:
    text = "Your sign-in code is 482913.\n" + "Lorem ipsum dolor sit amet.\n" * 4_000
    for transfer in ("base64", "quoted-printable"):
        assert verdict(mail("Your code", text, transfer=transfer)).content == "otp"


def test_a_message_is_judged_once_and_only_when_asked() -> None:
    examination = Examination(parse(mail("Your code", "482913")))
    assert examination.made is None
    assert examination.verdict() is examination.verdict()
    assert examination.made is not None


@given(st.one_of(any_content, st.binary(max_size=300)))
def test_no_bytes_break_the_detector(content: bytes) -> None:
    assert verdict(content).explain()


PIECES = st.sampled_from(
    ["Your", "code", "is", "482913", "48-21", "A1B2C3", "KQZVTB", "：", ":", "order", "№", "1 2 3 4", "code:", "kQzVt",
     "²³⁴⁵", "½AB¼", "①②③④", "G-4821", "€", "10", "2026", "\u200b", "\t", "https://a.example/4821", "验证码", " "]
)  # fmt: skip


@given(st.lists(PIECES, min_size=1, max_size=12), st.sampled_from(["", " "]))
def test_what_the_detector_calls_a_code_is_masked_in_the_subject(pieces: list[str], between: str) -> None:
    subject = between.join(pieces)
    found = verdict(
        mail(subject.replace("\t", " ") or "x", "Your sign-in code is in the subject. It is valid for 10 minutes.")
    )
    if found.content == "otp" and found.code is not None:
        shown = searchable(redact(subject)).replace(" ", "").replace("-", "").replace("\t", "")
        assert found.code not in shown


def test_the_data_is_within_its_limit() -> None:
    data = resources.files("relay.mail.codes").joinpath("detector.json").read_bytes()
    assert len(data) < 500_000
    assert len(json.loads(data)["lexicon"]["languages"]) >= 50
