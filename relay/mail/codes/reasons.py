"""Say in words why the detector takes a token for a code, or doesn't. No reason shows any of the mail's text."""

from __future__ import annotations

from collections import Counter, defaultdict

from relay.mail.codes import lexicon as lex
from relay.mail.codes.features import Candidate
from relay.mail.codes.lexicon import Lexicon

_MOST_LINES = 60
_FOR = (
    ("alone", "it stands alone on its line"),
    ("also_in_subject", "the subject has it, too"),
    ("mail:minutes", "minutes of validity"),
    ("mail:ignore", "words about ignoring or requesting it"),
    ("mail:secret", "words about keeping it secret"),
)
_AGAINST = (
    ("password_near_without_code", "a password or user name"),
    ("not_code_near_without_code", "a voucher, order or postal code"),
    ("gift_near_without_code", "voucher words"),
    ("order_near_without_code", "order words"),
    ("phone_near_without_code", "telephone words beside it"),
    ("subject:ticket", "a ticket number in the subject"),
    ("mail:gift", "voucher words"),
    ("mail:order>2", "order words"),
    ("mail:state", "a changed setting"),
    ("tokens>3", "several such tokens"),
    ("quoted", "it stands in a quotation"),
)


def reasons(lexicon: Lexicon, subject: str, lines: list[str], candidate: Candidate, *, is_otp: bool) -> tuple[str, ...]:
    """First where the token stands, then what speaks for it, then what speaks against it."""
    features = candidate.features
    for_it = [text for feature, text in _FOR if feature in features]
    against = list(dict.fromkeys(text for feature, text in _AGAINST if feature in features))
    return (
        _place(lexicon, subject, lines, candidate),
        *for_it,
        *([f"against it: {', '.join(against)}"] if against else ()),
        *(() if any(name.startswith(("mail:order", "subject:order")) for name in features) else ("no order words",)),
        *(() if is_otp or against else ("too little else speaks for a code",)),
    )


def _place(lexicon: Lexicon, subject: str, lines: list[str], candidate: Candidate) -> str:
    features = candidate.features
    if any(name.startswith(("before:code", "behind:code")) for name in features):
        where = "beside"
    elif "above:code" in features or "above2:code" in features:
        where = "below"
    elif "below:code" in features:
        where = "above"
    elif "mail:code" in features or "subject:code" in features:
        where = "in a mail with"
    else:
        return "code-shaped token without a word for code"
    return f"code-shaped token {where} the word for code in {_language(lexicon, subject, lines, candidate)}"


def _language(lexicon: Lexicon, subject: str, lines: list[str], candidate: Candidate) -> str:
    """The language of the word for code; of those that share it, the one that most of the mail's words belong to."""
    votes: defaultdict[str, float] = defaultdict(float)
    codes = Counter[str]()
    at = max(candidate.line, 1)
    for number, line in enumerate([subject, *lines[:_MOST_LINES]]):
        for hit in lexicon.hits(line, common=True):
            names = lexicon.names(hit.languages)
            for name in names:
                # A word of one language tells more than one of many.
                votes[name] += 1.0 / len(names)
            if hit.meanings & (lex.CODE | lex.PASSWORD) and (number == 0 or abs(number - at) <= 2):
                codes.update(names)
    in_order = sorted(codes or votes, key=lexicon.languages.index)
    return max(in_order, key=lambda name: (votes[name], codes[name]), default=lexicon.languages[0])
