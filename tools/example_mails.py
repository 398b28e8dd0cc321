"""Render the examples of tools/mails as mails, for training and for trying the detector.

    python -m tools.example_mails FOLDER

It writes a file for each mail and a labels.jsonl. The placeholders are filled by chance, the same for each run; the
encodings and charsets are those in which such mails come.
"""

from __future__ import annotations

import json
import random
import re
import string
import sys
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import yaml

MAILS = Path(__file__).parent / "mails"
_SITES = ("Northwind", "Casa Verde", "Kite 24", "Meridian Bank", "Pixelhaus", "Fjord", "Acme Tools", "Studio 54")
_USERS = ("grace1990", "jkowalski", "emma.n", "mehmet34", "liam77", "tnovak")
_NAMES = ("Anna", "José", "Mehmet", "Claire", "Noah", "Sofia")
_UPPER = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_MIXED = string.ascii_letters + string.digits
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_CHARSETS = {
    "de": "iso-8859-1", "fr": "iso-8859-15", "es": "iso-8859-1", "pl": "iso-8859-2", "cs": "iso-8859-2",
    "hu": "iso-8859-2", "ru": "koi8-r", "uk": "windows-1251", "bg": "windows-1251", "el": "iso-8859-7",
    "tr": "iso-8859-9", "ja": "iso-2022-jp", "ko": "euc-kr", "zh-Hans": "gb18030", "zh-Hant": "big5",
    "he": "windows-1255", "ar": "windows-1256", "th": "tis-620", "lt": "windows-1257",
}  # fmt: skip


def rendered(example: dict[str, Any], language: str, chance: random.Random) -> bytes:
    """The mail of one example, its placeholders filled by chance."""
    values = _values(chance)
    mail = EmailMessage()
    mail["From"] = f"{values['site']} <no-reply@{chance.choice(('app', 'mail', 'id'))}.example.com>"
    mail["To"] = values["email"]
    mail["Subject"] = _filled(example["subject"], values)
    is_html = "html" in example
    text = _filled(example["html" if is_html else "text"], values)
    charset = _CHARSETS.get(language, "utf-8") if chance.random() < 0.4 else "utf-8"
    try:
        text.encode(charset)
    except UnicodeEncodeError:
        charset = "utf-8"
    mail.set_content(
        text,
        subtype="html" if is_html else "plain",
        charset=charset,
        cte=chance.choice(("base64", "quoted-printable")),
    )
    return mail.as_bytes()


def _filled(text: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text).strip()


def _values(chance: random.Random) -> dict[str, str]:
    code = _code(chance)
    spans = "".join(f"<span>{char}</span>" for char in code)
    return {
        "code": code,
        "code_spans": spans,
        "order": _order(chance),
        "voucher": chance.choice((_some(chance, _UPPER, 8), f"SAVE{chance.randint(10, 99)}", _some(chance, _UPPER, 6))),
        "password": _some(chance, _MIXED, chance.choice((8, 10))),
        "user": chance.choice(_USERS),
        "name": chance.choice(_NAMES),
        "site": chance.choice(_SITES),
        "link": f"https://app.example.com/{_some(chance, _MIXED, 12)}/{chance.getrandbits(128):032x}",
        "minutes": str(chance.choice((5, 10, 15, 30))),
        "date": chance.choice(("29.11.2026", "2026-11-29", "11/29/2026", "29/11/2026")),
        "time": f"{chance.randint(0, 23):02}:{chance.randint(0, 59):02}",
        "amount": chance.choice(("€148.00", "1.250,00 EUR", "$25.90", "4 200 CHF")),
        "ip": f"203.0.113.{chance.randint(1, 250)}",
        "phone": f"+49 30 {chance.randint(1_000_000, 9_999_999)}",
        "email": f"{chance.choice(_USERS)}@example.net",
    }


def _some(chance: random.Random, alphabet: str, length: int) -> str:
    return "".join(chance.choice(alphabet) for _ in range(length))


def _code(chance: random.Random) -> str:
    kind = chance.random()
    digits = _some(chance, string.digits, chance.choice((4, 5, 6, 6, 6, 6, 7, 8)))
    if kind < 0.65:
        return digits
    if kind < 0.75:
        return f"{_some(chance, string.digits, 3)}{chance.choice(' -')}{_some(chance, string.digits, 3)}"
    # One digit at least, as those that make such codes do.
    token = _some(chance, _UPPER if kind < 0.92 else _MIXED, chance.choice((5, 7)))
    at = chance.randint(0, len(token))
    return token[:at] + chance.choice("23456789") + token[at:]


def _order(chance: random.Random) -> str:
    return chance.choice((
        _some(chance, string.digits, chance.choice((4, 5, 6, 8))),
        _some(chance, _UPPER, chance.choice((5, 6, 8))),
        f"{_some(chance, string.ascii_uppercase, 2)}-{_some(chance, string.digits, 6)}",
        f"#{_some(chance, string.digits, 5)}",
    ))  # fmt: skip


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(1)
    with (folder / "labels.jsonl").open("w", encoding="utf-8") as labels:
        for path in sorted(MAILS.glob("*.yaml")):
            language = re.sub(r"-\d$", "", path.stem)
            for number, example in enumerate(yaml.safe_load(path.read_text("utf-8"))):
                name = f"{path.stem}-{number:02}-{example['label']}-{example['kind']}.eml"
                (folder / name).write_bytes(rendered(example, language, chance))
                line = {"file": name, "label": example["label"], "lang": language, "source": f"own:{path.stem}"}
                labels.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
