"""Hide one-time codes in text. Every pattern takes linear time.

It errs on the side of hiding: a year or an order number is hidden too, since a code that stays is a leak. Whatever the
detector can take for a code (`shapes.py`) is hidden.
"""

from __future__ import annotations

import re

from relay.mail.codes.shapes import NO_CODE, letter_shape, searchable, shapes

MASK = "••••••"

# \d is Unicode's decimal digits. The others are what people read as digits too: superscript, subscript, circled.
_DIGIT = r"\d²³¹⁰⁴-⁹₀-₉①-⒛⓪-⓿❶-➓㉈-㉏㉑-㉟㊱-㊿🄀-🄊፩-፱᧚𐩀-𐩃𐹠-𐹨𑁒-𑁚"
# The scripts that codes are made of. In Chinese, Japanese and others a code stands amid words without a blank, and the
# words must stay.
_UPPER = r"A-ZÀ-ÖØ-ÞΑ-ΩЀ-ЯＡ-Ｚ"
_LETTER = rf"{_UPPER}a-zß-öø-ɏα-ωа-џａ-ｚ"
_DASH = r"[-‐-―]"

_DIGITS = re.compile(rf"[{_DIGIT}](?:[\W_]*[{_DIGIT}]){{3,}}[\ufe0f\u20e3]*")
_TOKEN = re.compile(rf"[{_LETTER}{_DIGIT}]+(?:{_DASH}[{_LETTER}{_DIGIT}]+)*")
ANY_DIGIT = re.compile(rf"[{_DIGIT}]")
_ANY_LETTER = re.compile(rf"[{_LETTER}]")

_KEYWORD = re.compile(
    # Parts of words, too: Sicherheitscode, kodu, kódja, Einmalpasswort.
    r"c[oó]d(?:e|igo|ice|i|ul?)|k[oóō]de?|koodi|passwor[dt]|kennwort|parol|contrase|clave|şifre|sifre|lozinka|hasło|"
    r"heslo|geslo|salasana|tunnusluku|lösen|sandi|κωδικ|код|пароль|"
    # Whole words only, since they are short.
    r"\b(?:otp|totp|pin|m?tan|cod|mã|token|2fa|mfa)\b|"
    r"验证码|驗證碼|校验码|校驗碼|确认码|確認碼|動態密碼|动态密码|口令|コード|認証番号|暗証番号|確認番号|パスワード|"
    r"인증번호|코드|비밀번호|رمز|كود|کد|קוד|סיסמה|कोड|ओटीपी|รหัส",
    re.IGNORECASE,
)
_IS = r"(?:is|are|ist|lautet|est|es|é|è|som|är|er|jest|je|este|van|adalah|là|as|als)"
# `ABC 123`, `7F 3K 9Q`: a code in short pieces.
_PIECES = re.compile(rf"(?<!\w)(?:[{_UPPER}{_DIGIT}]{{1,4}}[ \xa0])+[{_UPPER}{_DIGIT}]{{1,4}}(?!\w)")
_CAPITALS = re.compile(rf"(?<![\w&])[{_UPPER}]{{2,}}(?:{_DASH}[{_UPPER}]{{2,}})*(?!\w)")
_VERB_OR_SIGN = re.compile(rf"\s*(?:[^\w\s]|$)|\s+{_IS}\b", re.IGNORECASE)
# `code: kqzvtb`, `code is "kqzvtb"`; and behind either, a word with capitals inside: `code is kQzvTb`.
_LED_IN = re.compile(
    rf"(?:{_KEYWORD.pattern})\w{{0,12}}(?:\s*(?P<sign>[:=#→–—-])\s*|\s+{_IS}[:\s]+)(?P<open>[\"'“„«(\[]?)"
    rf"(?P<code>[{_LETTER}]{{4,}}(?:{_DASH}[{_LETTER}]+)*)",
    re.IGNORECASE,
)
_INNER_CAPITAL = re.compile(r"[a-z][A-Z]")
_NAME = re.compile(rf"[{_UPPER}][^{_UPPER}]+")
_MOST_ROUNDS = 8
_WITH_DIGIT = re.compile(r"[^\s\d]*\d\S*")
_ALONE = re.compile(r"\s*(?:[^\w\s]|$)")
# `kqzvtb is your code`
_LED_OUT = re.compile(
    rf"^\W*(?P<code>[{_LETTER}]{{4,}})(?=\s+{_IS}\s+(?:your|the|dein|ihr|votre|ton|tu|su|il|o|din|twój)\b)",
    re.IGNORECASE,
)


def hide_codes(text: str) -> str:
    """The text with MASK for everything that can be a code: four digits and more however spaced or dashed, tokens that
    mix letters and digits, and beside a word like `code` (in many languages) tokens of letters too."""
    keyword = _KEYWORD.search(text)
    if keyword is not None:
        text = _LED_OUT.sub(_hide_led_out, _LED_IN.sub(_hide_led_in, text))
        text = _PIECES.sub(_hide_pieces, text)
        text = _CAPITALS.sub(lambda found: _hide_capitals(found, keyword.end()), text)
    text = _TOKEN.sub(lambda found: MASK if _is_mixed(found[0], keyword is not None) else found[0], text)
    return _without_shapes(_DIGITS.sub(MASK, text))


def _without_shapes(text: str) -> str:
    """With MASK for what the detector would look at: few of its shapes are left here. Where there is one, the text
    comes back without invisible marks and with ASCII digits."""
    searched = searchable(text)
    found = list(shapes(searched))
    for _ in range(_MOST_ROUNDS):
        if not found:
            return text
        pieces, at = [], 0
        for shape in found:
            pieces += [searched[at : shape.start], MASK]
            at = shape.end
        # What stood beside a token can have kept another one from being one.
        text = searched = "".join([*pieces, searched[at:]])
        found = list(shapes(searched))
    return _WITH_DIGIT.sub(MASK, searched)


def hide_letters(subject: str) -> str:
    """A subject with MASK for a code of letters alone that the detector would look at: `KQZVTB`, `Acme: KQZVTB`."""
    searched = searchable(subject)
    found = letter_shape(searched)
    return subject if found is None else searched[: found.start] + MASK + searched[found.end :]


def _is_mixed(token: str, has_keyword: bool) -> bool:
    """`A1B2C3`, `ABCD-1234`, `G-12`; but `24-hour` only in a text with a keyword."""
    digits = len(ANY_DIGIT.findall(token))
    if not digits or not _ANY_LETTER.search(token) or len(token) < 4:
        return False
    return has_keyword or digits >= 3 or token.isalnum() or token.upper() == token


def _hide_pieces(found: re.Match[str]) -> str:
    pieces, names = found[0].replace("\xa0", " ").split(" "), 0
    while names < len(pieces) and (pieces[names].casefold() in NO_CODE or _KEYWORD.fullmatch(pieces[names])):
        names += 1
    code = "".join(pieces[names:])
    # _DIGITS hides digits alone, with what stands around them.
    if len(code) < 4 or not ANY_DIGIT.search(code) or not _ANY_LETTER.search(code):
        return found[0]
    return " ".join([*pieces[:names], MASK])


def _hide_capitals(found: re.Match[str], keyword_end: int) -> str:
    """A word in capitals is a code behind `code`, before a verb and before a sign: `QWERT is ...`, `[QWERT] ...`,
    `QWERT: ...`. In front of another word it is a name: `IKEA verification code`."""
    word = found[0]
    if len(word) < 4 or word.casefold() in NO_CODE or _KEYWORD.search(word):
        return word
    behind = found.start() >= keyword_end
    return MASK if behind or _VERB_OR_SIGN.match(found.string, found.end()) else word


def _hide_led_in(found: re.Match[str]) -> str:
    """Any word that stands alone behind `code:`; behind `code is` only a word that no sentence has."""
    code = found["code"]
    alone = _ALONE.match(found.string, found.end()) is not None
    named = alone and (found["sign"] or found["open"])
    if code.casefold() in NO_CODE or _NAME.fullmatch(code) or not (named or _INNER_CAPITAL.search(code)):
        return found[0]
    return found[0][: -len(code)] + MASK


def _hide_led_out(found: re.Match[str]) -> str:
    code = found["code"]
    return found[0] if code.casefold() in NO_CODE else found[0][: -len(code)] + MASK
