"""Mistakes in what the mail says: its subject, and how it presents the code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relay.mail.codes import lexicon as lex
from relay.mail.codes.detector import DOUBTFUL
from relay.mail.codes.shapes import Shape
from relay.mail.lint.mail import Mail, meanings_of, tokens_of
from relay.mail.lint.rules import LintFinding, found

_GENERIC = re.compile(
    r"\W*(?:action required|important(?: (?:message|notice|information|update))?"
    r"|(?:account )?(?:notification|alert|notice|update|information)|urgent|attention|hello|hi|welcome|message|info"
    r"|reminder|no subject|test|(?:your|my) account|please read|read this)\W*",
    re.IGNORECASE,
)
_MARKETING = re.compile(r"\b(?:sale|offers?|discount|act now|buy now|newsletter|promo\w*)\b|\d ?%", re.IGNORECASE)
# These stand in subjects of codes, too: `Your code to save changes`.
_MAYBE_MARKETING = re.compile(r"\b(?:free|deal|save|win(?:ner)?|prize|bonus|exclusive|limited time)\b", re.IGNORECASE)
_LEAST_SHOUTED_LETTERS = 9
_SHORT_CHARS = 300
"""In a text as short as this, a code is found wherever it stands."""
_SHORT_LINE_CHARS = 60
_FOOTER_CHARS = 700
_CODE_LENGTHS = range(4, 9)
_SAID_IN_SUBJECT = lex.CODE | lex.VERIFY | lex.ONCE | lex.PASSWORD


def wording(mail: Mail) -> Iterator[LintFinding]:
    yield from _subject(mail)
    code = mail.verdict.code if mail.verdict.score > -DOUBTFUL else None
    if code is None:
        is_in_image = mail.markup.images and (not mail.lines or mail.meanings & (lex.CODE | lex.VERIFY))
        yield found("code-in-image" if is_in_image else "no-code")
        return
    parts = {"text/plain": _has(mail.plain_tokens, code), "text/html": _has(mail.html_tokens, code)}
    missing = [kind for kind, has in parts.items() if has is False]
    if len(missing) == 1 and True in parts.values():
        yield found("code-in-one-part", kind=missing[0])
    yield from _code(mail, code)
    yield from _around(mail, code)


def _has(tokens: list[list[Shape]] | None, code: str) -> bool | None:
    """Whether the lines of a part have the code. None: there is no such part, or it is empty."""
    return any(token.code == code for of_line in tokens for token in of_line) if tokens else None


def _subject(mail: Mail) -> Iterator[LintFinding]:
    subject = mail.subject
    if not subject:
        yield found("subject")
        return
    letters = [char for char in subject if char.isalpha()]
    if subject.count("!") > 1 or (len(letters) >= _LEAST_SHOUTED_LETTERS and all(map(str.isupper, letters))):
        yield found("shouting")
    if _GENERIC.fullmatch(subject):
        yield found("subject-generic")
        return
    meanings = meanings_of(subject)
    is_marketing = _MARKETING.search(subject) or (
        not meanings & (lex.CODE | lex.VERIFY) and _MAYBE_MARKETING.search(subject)
    )
    if is_marketing or (meanings & lex.GIFT and not meanings & lex.VERIFY):
        yield found("subject-marketing")
    elif not meanings & _SAID_IN_SUBJECT and all(token.code != mail.verdict.code for token in tokens_of(subject)):
        yield found("subject-unclear")


def _code(mail: Mail, code: str) -> Iterator[LintFinding]:
    if len(code) not in _CODE_LENGTHS:
        yield found("code-length", number=len(code))
    if not code.isdigit():
        yield found("code-letters")
    # Letters alone aren't looked at: a company's name on a line of its own has the shape of a code, too.
    tokens = [token for of_line in mail.tokens for token in of_line]
    numbers = {one.code for one in (*tokens_of(mail.subject), *tokens) if one.kind != "letters"} - {code}
    if any(len(one) == len(code) and not _is_year(one) for one in numbers):
        yield found("other-numbers")
    if [token.code for token in tokens].count(code) > 1:
        yield found("code-twice")


def _around(mail: Mail, code: str) -> Iterator[LintFinding]:
    lines = mail.lines
    at = next((n for n, of_line in enumerate(mail.tokens) if any(one.code == code for one in of_line)), None)
    if at is not None:
        is_long = len(lines[at]) > _SHORT_LINE_CHARS and sum(map(len, lines)) > _SHORT_CHARS
        if is_long and code not in "".join(mail.markup.emphasised):
            yield found("not-prominent")
    if not mail.meanings & (lex.UNIT | lex.VALID):
        yield found("no-expiry")
    if not mail.meanings & (lex.IGNORE | lex.SECRET):
        yield found("no-ignore")
    behind = 0 if at is None else sum(map(len, lines[at + 1 :]))
    if behind > _FOOTER_CHARS:
        yield found("long-footer", number=behind)


def _is_year(token: str) -> bool:
    return len(token) == 4 and token.startswith(("19", "20")) and token.isdigit()
