"""Redact one-time codes and credentials in what is shown, logged or stored: subjects, and replies of upstreams."""

from __future__ import annotations

import re

from relay.mail.codes.masking import ANY_DIGIT, MASK, hide_codes, hide_letters
from relay.mail.header_text import one_line
from relay.mail.message import parse, subject

MAX_REPLY = 512
MAX_TEXT = 1_000
"""characters of a subject that are kept"""
_CUT = 40
"""characters before such a cut that are dropped, too: they may begin a code"""


def redact(text: str) -> str:
    """A subject with MASK for every one-time code, at most MAX_TEXT characters long."""
    shown = hide_letters(hide_codes(text[:MAX_TEXT]))
    if len(text) > MAX_TEXT:
        shown = shown[:-_CUT].rstrip() + "…"
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…"


_BLOB = re.compile(r"(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{48,}+={0,2}|[A-Za-z0-9+/]{16,}+={1,2})")
_CREDENTIAL = re.compile(
    r"(\b(?:PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|CRAM-MD5|SCRAM-SHA-[\w-]+|Bearer|Basic|pass(?:word)?[=:]|token[=:])\s*)"
    r"[A-Za-z0-9+/_.~-]{8,}={0,2}",
    re.IGNORECASE,
)
# Nearly every reply lacks all of these, so most need no regular expression.
_CREDENTIAL_HINTS = ("plain", "login", "oauth", "md5", "sha-", "bearer", "basic", "pass", "token")

# An address is no code, whatever digits it has. A word of a reply may be one.
_QUOTABLE = re.compile(r"\S*@\S*|[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*")
_SEARCHED_BYTES = 65_536
_PIECE = re.compile(rb"[A-Za-z0-9]+")
_MAX_SUSPECTS = 20
"""words of a reply that can be a code; the reply is cut behind them"""
_MAX_SEARCHES = 1_000
"""for such words of all replies about one content"""


class RefusedContent:
    """A content that upstreams refused. It is parsed once for all their replies, and only where one may quote it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._text: bytes | None = None
        self._pieces: frozenset[bytes] = frozenset()
        self._searches = 0

    def __bool__(self) -> bool:
        return bool(self._content)

    def has(self, word: bytes) -> bool:
        """Whether the word stands in the content, with no letter or digit beside it. True after _MAX_SEARCHES."""
        self._searches += 1
        if self._searches > _MAX_SEARCHES:
            return True
        if self._text is None:
            content = self._content
            self._text = content[:_SEARCHED_BYTES] + b"\n" + subject(parse(content)).encode("utf-8", "replace")
            self._pieces = frozenset(_PIECE.findall(self._text))
        # The pieces of a word with dashes may stand apart: such a word is hidden without need.
        return self._pieces.issuperset(word.split(b"-")) and word in self._text


def redact_reply(text: str, refused: bytes | RefusedContent = b"") -> str:
    """An upstream's reply, fit to be stored and logged: one line of at most MAX_REPLY characters, without credentials
    and long base64. Digits stay: they are the status code and the upstream's id of the message.

    `refused` is the content that the reply refuses. What the reply quotes of it is hidden where it can be a code.
    """
    # Cut first: a blob that the cut shortens is still one.
    line = one_line(text[: 2 * MAX_REPLY])
    lower = line.lower()
    # Letters beyond ASCII can match these, too.
    if not line.isascii() or any(word in lower for word in _CREDENTIAL_HINTS):
        line = _CREDENTIAL.sub(rf"\1{MASK}", line)
    line = _BLOB.sub(MASK, line)
    if refused:
        line = _without_quotes(line, refused if isinstance(refused, RefusedContent) else RefusedContent(refused))
    return line if len(line) <= MAX_REPLY else line[: MAX_REPLY - 1] + "…"


def _without_quotes(line: str, refused: RefusedContent) -> str:
    kept: list[str] = []
    suspects, at = 0, 0
    for found in _QUOTABLE.finditer(line):
        word = found[0]
        if len(word) < 4 or "@" in word or ANY_DIGIT.search(word) is None:
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
