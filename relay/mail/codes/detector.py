"""The content detector: does a message carry a short code that its reader is to type in?

Pure, without state, and in linear time: it looks at the first READ_BYTES. A linear model weighs what
`features.py` finds about each token of the shape of a code; the heaviest token decides. Words and weights
are in detector.json, which tools/train_detector.py writes (docs/detector.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import repeat
from typing import Literal, NamedTuple

from relay.mail.codes.features import Candidate, candidates
from relay.mail.codes.lexicon import Lexicon
from relay.mail.codes.reading import Text, read
from relay.mail.codes.reasons import reasons
from relay.mail.message import Message

Content = Literal["otp", "other"]


class Model(NamedTuple):
    """The words, and the weight of each feature. A mail is `otp` above a sum of 0, `bias` included."""

    lexicon: Lexicon
    weights: dict[str, float]
    bias: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """`content`; `score` is the log-odds of `otp`; `code` is the token, which must not be shown or logged."""

    content: Content
    score: float
    code: str | None = field(default=None, repr=False)
    explain: Callable[[], tuple[str, ...]] = field(default=lambda: ("no code-shaped token",), repr=False)
    """The reasons in words, without the code. They are made when they are asked for."""


NO_TOKEN = -10.0
"""the score of a mail without any code-shaped token"""
NOTHING = Verdict("other", NO_TOKEN)
"""the verdict on such a mail"""
DOUBTFUL = 1.5
"""a score as near to 0 as this is doubtful"""


def detect(message: Message) -> Verdict:
    """The verdict on a message's first READ_BYTES. Never raises."""
    model = the_model()
    subject, texts = read(message)
    best: Verdict | None = None
    for text in texts:
        for found in candidates(subject, text, model.lexicon):
            verdict = _judge(model, subject, text, found)
            if verdict.score > 0:
                return verdict
            if best is None or verdict.score > best.score:
                best = verdict
    return best or NOTHING


def _judge(model: Model, subject: str, text: Text, found: list[Candidate]) -> Verdict:
    """The verdict by the heaviest of the candidates."""
    best, best_score = found[0], float("-inf")
    of_mails: dict[frozenset[str], float] = {}
    for candidate in found:
        of_mail = of_mails.get(candidate.of_mail)
        if of_mail is None:
            of_mail = of_mails[candidate.of_mail] = _sum(model, candidate.of_mail)
        score = model.bias + of_mail + _sum(model, candidate.of_token)
        if score > best_score:
            best, best_score = candidate, score
    is_otp = best_score > 0

    def explain() -> tuple[str, ...]:
        return reasons(model.lexicon, subject, [*text.lines, *text.rest_lines()], best, is_otp=is_otp)

    return Verdict("otp" if is_otp else "other", best_score, best.shape.code, explain)


def _sum(model: Model, features: frozenset[str]) -> float:
    return sum(map(model.weights.get, features, repeat(0.0)))


@cache
def the_model() -> Model:
    data = json.loads(resources.files(__package__).joinpath("detector.json").read_text("utf-8"))
    return Model(Lexicon(data["lexicon"]), data["weights"], data["bias"])
