"""Mails for the detector's tests."""

from __future__ import annotations

from email.message import EmailMessage
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, cast

import yaml

from relay.mail.codes.detector import Verdict, detect
from relay.mail.message import parse

MINUTES = "10"
Transfer = Literal["7bit", "8bit", "base64", "quoted-printable"]


class CleanMail(NamedTuple):
    """A one-time code's mail as it should be, in one language, with the places `{code}` and `{minutes}`."""

    language: str
    subject: str
    lines: tuple[str, ...]

    def text(self, code: str) -> str:
        return self.filled("\n\n".join(self.lines), code)

    def html(self, code: str) -> str:
        paragraphs = "".join(f"<p>{line}</p>" for line in self.lines)
        return self.filled(f"<html><body>{paragraphs}</body></html>", code)

    @staticmethod
    def filled(text: str, code: str) -> str:
        return text.replace("{code}", code).replace("{minutes}", MINUTES)


@cache
def clean_mails() -> tuple[CleanMail, ...]:
    """One in each language of clean_codes.yaml."""
    path = Path(__file__).parents[1] / "clean_codes.yaml"
    languages = cast("dict[str, dict[str, object]]", yaml.safe_load(path.read_text("utf-8")))
    return tuple(
        CleanMail(language, str(mail["subject"]), tuple(cast("list[str]", mail["lines"])))
        for language, mail in languages.items()
    )


def mail(
    subject: str, text: str, kind: str = "plain", *, charset: str = "utf-8", transfer: Transfer = "quoted-printable"
) -> bytes:
    """A message of one text part."""
    made = EmailMessage()
    made["Subject"] = subject
    made.set_content(text, subtype=kind, charset=charset, cte=transfer)
    return made.as_bytes()


def verdict(content: bytes) -> Verdict:
    return detect(parse(content))
