"""Mistakes in what the mail says."""

from __future__ import annotations

import re

from relay.mail.lint import lint
from tests.mail.lint.material import CODE, HTML, NOW, TEXT, Cases, changed, mail, with_html, with_subject

PARAGRAPH = (
    "Hello and welcome back to Acme, the place where you plan your week together with all the people of your team.\n"
    "Somebody, most likely you, wants to sign in, so please enter {code} on the page that you have open.\n"
    "It is valid for 10 minutes, and it works one time only, on the device on which you started to sign in.\n"
    "If you didn't ask for this code, ignore this mail: without it, nobody gets into your account at Acme.\n"
)
FOOTER = "Acme Ltd plans your week together with all the people of your team, wherever you work. "


def paragraph(code: str) -> bytes:
    text = PARAGRAPH.replace("{code}", code)
    lines = [f"<p>{line}</p>\n" for line in text.splitlines()]
    return mail(text=re.sub("<[^>]*>", "", text), html="".join(lines))


def with_code(code: str) -> bytes:
    return changed(CODE, code)


def without(line: str) -> bytes:
    """The clean mail without that line in both parts."""
    return mail(text=TEXT.replace(f"{line}\n", ""), html=HTML.replace(f"<p>{line}</p>\n", ""))


BAD: Cases = {
    "no subject": ("subject", changed("Subject: Your Acme sign-in code\r\n", "")),
    "an empty subject": ("subject", with_subject("")),
    "a subject of invisible marks": ("subject", with_subject("=?utf-8?q?=E2=80=8B?=")),
    "the subject “Notification”": ("subject-generic", with_subject("Notification")),
    "the subject “Action required”": ("subject-generic", with_subject("Action required!")),
    "the subject “Important information”": ("subject-generic", with_subject("Important information")),
    "a subject that names the sender alone": ("subject-unclear", with_subject("A message from Acme")),
    "a subject about something else": ("subject-unclear", with_subject("Your dinner is on its way")),
    "a subject that is a name with the shape of a code": ("subject-unclear", with_subject("GitHub")),
    "a discount in the subject": ("subject-marketing", with_subject("Your code and a 20% discount")),
    "an offer in the subject": ("subject-marketing", with_subject("Sign-in code and an exclusive offer")),
    "a subject in capitals": ("shouting", with_subject("YOUR ACME SIGN-IN CODE")),
    "two exclamation marks": ("shouting", with_subject("Your code is here!!")),
    "no code": ("no-code", without(CODE)),
    "a code of three digits": ("no-code", with_code("482")),
    "an image instead of the code": (
        "code-in-image",
        mail(
            text=TEXT.replace(CODE, ""),
            html=HTML.replace(CODE, '<img src="https://www.example.com/code.png" alt="" width="200" height="50">'),
        ),
    ),
    "HTML that is one image": ("code-in-image", mail(html='<img src="cid:1">', text="See the image.\n")),
    "a code that the HTML part lacks": ("code-in-one-part", mail(html=HTML.replace(CODE, ""))),
    "a code that the text part lacks": ("code-in-one-part", mail(text=TEXT.replace(CODE, ""))),
    "a code of nine digits": ("code-length", with_code("482913756")),
    "a code of ten digits": ("code-length", with_code("4829137561")),
    "a code of letters and digits": ("code-letters", with_code("K7Q4ZB")),
    "a code of letters": ("code-letters", with_code("KQZVTB")),
    "another number of six digits": ("other-numbers", changed("Acme, Köln", "Acme, Köln, order 739155")),
    "another number of six digits in the subject": ("other-numbers", with_subject("Your code for order 739155")),
    "another number of eight digits with a dash": (
        "other-numbers",
        changed("Acme, Köln", "Order 4829-1375", with_code("48291376")),
    ),
    "the code two times": ("code-twice", changed("Acme, Köln", f"Acme, Köln: {CODE}")),
    "the code within a long text": ("not-prominent", paragraph(CODE)),
    "no word on how long": ("no-expiry", without("The code is valid for 10 minutes.")),
    "no word for others": ("no-ignore", without("If you didn't ask for this code, ignore this mail.")),
    "a footer of 900 characters": ("long-footer", changed("Acme, Köln", FOOTER * 10)),
}
FINE = {
    "a code of four digits": with_code("4829"),
    "a code of eight digits": with_code("48291375"),
    "a code with a blank": with_code("482 913"),
    "a code with a dash": with_code("482-913"),
    "a code with blanks between all digits": with_code("4 8 2 9 1 3"),
    "a verb of marketing beside the word for code": with_subject("Your code to save the changes"),
    "the code in the subject": with_subject(f"{CODE} is your Acme code"),
    "the code alone as subject": with_subject(CODE),
    "a short word in capitals": with_subject("ACME code"),
    "eight letters in capitals": with_subject("ACME CODE"),
    "one exclamation mark": with_subject("Your Acme code is here!"),
    "a generic word before the code's": with_subject("Important: your sign-in code"),
    "a number of another length": changed("Acme, Köln", "Acme, 50667 Köln"),
    "a name with the shape of a code": changed("Acme, Köln", "GitHub"),
    "a name in capitals as long as the code": changed("Acme, Köln", "LONDON"),
    "a phone number and a time": changed("Acme, Köln", "+49 221 123456, sent at 2025-03-01 09:05:07 UTC"),
    "a year beside a code of four digits": changed("Acme, Köln", "© 2025 Acme", with_code("4829")),
    "the code within a short text": mail(
        html=None,
        text=f"Your Acme code is {CODE}. It is valid for 10 minutes. If you didn't ask for it, ignore this.\n",
    ),
    "the code in a short sentence of a long text": mail(
        html=None, text=PARAGRAPH.replace("{code}", "the code") + f"Your code: {CODE}\n"
    ),
    "the code in bold within a long text": paragraph(f"<b>{CODE}</b>"),
    "the code in large letters within a long text": paragraph(f'<span style="font-size: 24px">{CODE}</span>'),
    "a logo beside the code": with_html('<p><img src="https://www.example.com/logo.png" alt="Acme"></p>'),
    "a footer of 600 characters": changed("Acme, Köln", FOOTER * 6),
}


def test_the_length_that_is_reported_is_the_codes() -> None:
    [found] = lint(with_code("4829137561"), now=NOW)
    assert "10 characters" in found.text
