"""One-time codes out of what is shown, logged or stored: subjects, and the replies of upstreams.

It errs on the side of hiding: a year or an order number goes too, for a code that stays is a leak. Every pattern
takes linear time.
"""

from __future__ import annotations

import re

from relay.mail.message import parse, subject
from relay.mail.words import one_line

MASK = "••••••"
MAX_REPLY = 512
MAX_TEXT = 1_000
"""characters of a subject that are kept: what is behind them is cut off"""
_CUT = 40
"""characters before such a cut that go, too: they may be the beginning of a code"""

# \d is Unicode's decimal digits; then what else people read as digits: superscript, subscript, circled and the like.
_DIGIT = r"\d²³¹⁰⁴-⁹₀-₉①-⒛⓪-⓿❶-➓㉈-㉏㉑-㉟㊱-㊿🄀-🄊፩-፱᧚𐩀-𐩃𐹠-𐹨𑁒-𑁚"
# The scripts that codes are made of. In others (Chinese, Japanese, ...) a code stands amid words without a blank,
# and the words must not go with it.
_UPPER = r"A-ZÀ-ÖØ-ÞΑ-ΩЀ-ЯＡ-Ｚ"
_LETTER = rf"{_UPPER}a-zß-öø-ɏα-ωа-џａ-ｚ"
_DASH = r"[-‐-―]"

_DIGITS = re.compile(rf"[{_DIGIT}](?:[\W_]*[{_DIGIT}]){{3,}}[\ufe0f\u20e3]*")
_TOKEN = re.compile(rf"[{_LETTER}{_DIGIT}]+(?:{_DASH}[{_LETTER}{_DIGIT}]+)*")
_ANY_DIGIT = re.compile(rf"[{_DIGIT}]")
_ANY_LETTER = re.compile(rf"[{_LETTER}]")

_KEYWORD = re.compile(
    # These as a part of a word too: Sicherheitscode, kodu, kódja, Einmalpasswort.
    r"c[oó]d(?:e|igo|ice|i|ul?)|k[oóō]de?|koodi|passwor[dt]|kennwort|parol|contrase|clave|şifre|sifre|lozinka|hasło|"
    r"heslo|geslo|salasana|tunnusluku|lösen|sandi|κωδικ|код|пароль|"
    # These as words of their own, being short.
    r"\b(?:otp|totp|pin|m?tan|cod|mã|token|2fa|mfa)\b|"
    r"验证码|驗證碼|校验码|校驗碼|确认码|確認碼|動態密碼|动态密码|口令|コード|認証番号|暗証番号|確認番号|パスワード|"
    r"인증번호|코드|비밀번호|رمز|كود|کد|קוד|סיסמה|कोड|ओटीपी|รหัส",
    re.IGNORECASE,
)
_IS = r"(?:is|are|ist|lautet|est|es|é|è|som|är|er|jest|je|este|van|adalah|là|as|als)"
# `ABC 123`, `7F 3K 9Q`: a code in short pieces.
_PIECES = re.compile(rf"(?<!\w)(?:[{_UPPER}{_DIGIT}]{{1,4}}[ \xa0])+[{_UPPER}{_DIGIT}]{{1,4}}(?!\w)")
_CAPITALS = re.compile(rf"(?<![\w&])[{_UPPER}]{{2,}}(?:{_DASH}[{_UPPER}]{{2,}})*(?!\w)")
_IS_SAID_OF_IT = re.compile(rf"\s*(?:[^\w\s]|$)|\s+{_IS}\b", re.IGNORECASE)
# `code: kqzvtb`, `code is "kqzvtb"`; and behind either, a word with capitals inside: `code is kQzvTb`.
_LED_IN = re.compile(
    rf"(?:{_KEYWORD.pattern})\w{{0,12}}(?:\s*(?P<sign>[:=#→–—-])\s*|\s+{_IS}[:\s]+)(?P<open>[\"'“„«(\[]?)"
    rf"(?P<code>[{_LETTER}]{{4,}}(?:{_DASH}[{_LETTER}]+)*)",
    re.IGNORECASE,
)
_INNER_CAPITAL = re.compile(r"[a-z][A-Z]")
_NAME = re.compile(rf"[{_UPPER}][^{_UPPER}]+")
_ALONE = re.compile(r"\s*(?:[^\w\s]|$)")
# `kqzvtb is your code`
_LED_OUT = re.compile(
    rf"^\W*(?P<code>[{_LETTER}]{{4,}})(?=\s+{_IS}\s+(?:your|the|dein|ihr|votre|ton|tu|su|il|o|din|twój)\b)",
    re.IGNORECASE,
)
_NO_CODE = frozenset(
    "your code codes this that here below from with the use enter login logon sign account security secure "  # noqa: SIM905
    "verification verify verified confirm confirmation authentication access password passcode token time once "
    "temporary expires expired minutes only never share please important dein deine ihre hier dies diese votre notre "
    "voici pour esta este aquí questo ecco para".split()
)


def redact(text: str) -> str:
    """`text` with every one-time code as `••••••`: four digits and more however spaced or dashed, tokens that mix
    letters and digits, and beside a word like `code` (in many languages) tokens of letters too. At most MAX_TEXT
    characters of it, and of what they become."""
    shown = _redact(text[:MAX_TEXT])
    if len(text) > MAX_TEXT:
        shown = shown[:-_CUT].rstrip() + "…"
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…"


def _redact(text: str) -> str:
    spoken_of = _KEYWORD.search(text)
    if spoken_of is not None:
        text = _LED_OUT.sub(_hide_led_out, _LED_IN.sub(_hide_led_in, text))
        text = _PIECES.sub(_hide_pieces, text)
        text = _CAPITALS.sub(lambda found: _hide_capitals(found, spoken_of.end()), text)
    text = _TOKEN.sub(lambda found: MASK if _is_mixed(found[0], spoken_of is not None) else found[0], text)
    return _DIGITS.sub(MASK, text)


def _is_mixed(token: str, spoken_of: bool) -> bool:
    """`A1B2C3`, `ABCD-1234`, `G-12`; but `24-hour` only where codes are spoken of."""
    digits = len(_ANY_DIGIT.findall(token))
    if not digits or not _ANY_LETTER.search(token) or len(token) < 4:
        return False
    return spoken_of or digits >= 3 or token.isalnum() or token.upper() == token


def _hide_pieces(found: re.Match[str]) -> str:
    pieces, names = found[0].replace("\xa0", " ").split(" "), 0
    while names < len(pieces) and (pieces[names].casefold() in _NO_CODE or _KEYWORD.fullmatch(pieces[names])):
        names += 1
    code = "".join(pieces[names:])
    # Digits alone are the business of the pattern that also sees what stands around them.
    if len(code) < 4 or not _ANY_DIGIT.search(code) or not _ANY_LETTER.search(code):
        return found[0]
    return " ".join([*pieces[:names], MASK])


def _hide_capitals(found: re.Match[str], spoken_of_end: int) -> str:
    """A word in capitals is the code when it comes behind `code`, or where something is said of it: `QWERT is ...`,
    `[QWERT] ...`, `QWERT: ...`. In front of another word it's a name: `IKEA verification code`."""
    word = found[0]
    if len(word) < 4 or word.casefold() in _NO_CODE or _KEYWORD.search(word):
        return word
    behind = found.start() >= spoken_of_end
    return MASK if behind or _IS_SAID_OF_IT.match(found.string, found.end()) else word


def _hide_led_in(found: re.Match[str]) -> str:
    """Any word alone behind `code:`; behind `code is` only what no sentence goes on with."""
    code = found["code"]
    alone = _ALONE.match(found.string, found.end()) is not None
    named = alone and (found["sign"] or found["open"])
    if code.casefold() in _NO_CODE or _NAME.fullmatch(code) or not (named or _INNER_CAPITAL.search(code)):
        return found[0]
    return found[0][: -len(code)] + MASK


def _hide_led_out(found: re.Match[str]) -> str:
    code = found["code"]
    return found[0] if code.casefold() in _NO_CODE else found[0][: -len(code)] + MASK


_BLOB = re.compile(r"(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{48,}+={0,2}|[A-Za-z0-9+/]{16,}+={1,2})")
_CREDENTIAL = re.compile(
    r"(\b(?:PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|CRAM-MD5|SCRAM-SHA-[\w-]+|Bearer|Basic|pass(?:word)?[=:]|token[=:])\s*)"
    r"[A-Za-z0-9+/_.~-]{8,}={0,2}",
    re.IGNORECASE,
)
# A quick look at what nearly every reply lacks.
_SPEAK_OF_ONE = ("plain", "login", "oauth", "md5", "sha-", "bearer", "basic", "pass", "token")


# An address is no code, whatever digits it has; a word of a reply may be one.
_QUOTABLE = re.compile(r"\S*@\S*|[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*")
_LOOKED_AT_BYTES = 65_536
_PIECE = re.compile(rb"[A-Za-z0-9]+")
_MAX_SUSPECTS = 20
"""words of a reply that might be a code; behind so many it is cut off"""
_MAX_LOOKS = 1_000
"""for such words of all replies about one content"""


class Refused:
    """The content that upstreams said no to, read once for all their replies, and only when one of them might quote
    it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._said: bytes | None = None
        self._pieces: frozenset[bytes] = frozenset()
        self._looks = 0

    def __bool__(self) -> bool:
        return bool(self._content)

    def has(self, word: bytes) -> bool:
        """Does it stand in there, with no letter or digit at either side? Taken for granted after _MAX_LOOKS."""
        self._looks += 1
        if self._looks > _MAX_LOOKS:
            return True
        if self._said is None:
            content = self._content
            self._said = content[:_LOOKED_AT_BYTES] + b"\n" + subject(parse(content)).encode("utf-8", "replace")
            self._pieces = frozenset(_PIECE.findall(self._said))
        # Pieces of a word with dashes may stand apart from each other: such a word goes without need.
        return self._pieces.issuperset(word.split(b"-")) and word in self._said


def redact_reply(text: str, refused: bytes | Refused = b"") -> str:
    """An upstream's reply fit to be stored and logged: one line of at most MAX_REPLY characters, credentials and long
    base64 gone. Digits stay: they are the status code and the upstream's id of the message. `refused`: the content
    that it is about, where it says no: then what it quotes of that goes too, if it might be a code."""
    # Cut before looking: a blob that the cut shortens is still one.
    line = one_line(text[: 2 * MAX_REPLY])
    lower = line.lower()
    # Beyond ASCII, other letters count as these.
    if not line.isascii() or any(word in lower for word in _SPEAK_OF_ONE):
        line = _CREDENTIAL.sub(rf"\1{MASK}", line)
    line = _BLOB.sub(MASK, line)
    if refused:
        line = _without_quotes(line, refused if isinstance(refused, Refused) else Refused(refused))
    return line if len(line) <= MAX_REPLY else line[: MAX_REPLY - 1] + "…"


def _without_quotes(line: str, refused: Refused) -> str:
    """As much of it as is kept."""
    kept: list[str] = []
    suspects, at = 0, 0
    for found in _QUOTABLE.finditer(line):
        word = found[0]
        if len(word) < 4 or "@" in word or _ANY_DIGIT.search(word) is None:
            continue
        if suspects == _MAX_SUSPECTS:
            kept += [line[at : found.start()], MASK]
            break
        suspects += 1
        if refused.has(word.encode()):
            kept += [line[at : found.start()], MASK]
            at = found.end()
    else:
        kept.append(line[at:])
    return "".join(kept)
