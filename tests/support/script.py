"""What a scripted upstream answers: actions, and the table that picks one for each step of a session.

An answer is any of
- an action: a literal reply (`"451 4.3.0 later"`, its lines separated by `\\n`), `Hang()`, ...
- None: what a well-behaved server would say
- a list: one answer per occurrence of the step, over all sessions; None after its end
- `BySession([...])`: one answer per session, None after its end
- a mapping: pattern (glob) of the command's address to answer, the first that fits
- a callable: `(Moment) -> action or None`
A script is a mapping of step to answer, or one callable for all steps. A mapping speaks only where the server
would have said yes: a command out of order keeps its 503. A callable is always asked and sees that in
`Moment.default`.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

Step = Literal[
    "greeting", "ehlo", "helo", "starttls", "handshake", "auth", "mail", "rcpt", "data", "dot", "bdat",
    "rset", "noop", "vrfy", "quit", "idle", "unknown",
]  # fmt: skip
"""`dot` is the end of the content, the final dot as well as BDAT LAST; `bdat` any chunk before the last."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing more, but notice when the client leaves. `taken`: the message counts as accepted."""

    taken: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection with FIN, without a reply."""

    taken: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """End the connection with RST."""

    taken: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    seconds: float
    then: Action = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Hold the answer back until the test sets the event."""

    event: asyncio.Event
    then: Action = None


@dataclass(frozen=True, slots=True)
class Stall:
    """Read nothing for so long, then go on: the client's window closes."""

    seconds: float
    then: Action = None


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes that are no reply; the session goes on as though nothing had been said."""

    data: bytes = b"\x00\xff not smtp \r\n"


@dataclass(frozen=True, slots=True)
class Endless:
    """A reply without end: the line repeats until the client leaves."""

    line: bytes = b"250-and there is more\r\n"
    at_once: int = 64
    """lines in one write"""


@dataclass(frozen=True, slots=True)
class Drip:
    """A reply, byte by byte."""

    reply: str | None = None
    per_byte_s: float = 0.01


@dataclass(frozen=True, slots=True)
class Split:
    """A reply cut into segments, written one by one; the parts carry their own CRLF."""

    parts: Sequence[bytes]
    pause_s: float = 0.01


@dataclass(frozen=True, slots=True)
class ReplyThenClose:
    reply: str


@dataclass(frozen=True, slots=True)
class ReplyThenReset:
    reply: str


Action: TypeAlias = (
    str
    | Hang
    | Close
    | Reset
    | Delay
    | Wait
    | Stall
    | Garbage
    | Endless
    | Drip
    | Split
    | ReplyThenClose
    | ReplyThenReset
    | None
)


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a session stands when an answer is due."""

    step: Step
    session: int
    """index of the session, from 0"""
    n: int
    """how often this step came before, over all sessions"""
    n_in_session: int
    argument: str
    """the command's argument as sent: `TO:<a@b> NOTIFY=NEVER`"""
    default: str
    """what a well-behaved server says here"""

    @property
    def address(self) -> str:
        return address_of(self.argument)


Decide: TypeAlias = Callable[[Moment], Action]


@dataclass(frozen=True, slots=True)
class BySession:
    answers: Sequence[Answer]


Answer: TypeAlias = Action | Decide | BySession | Sequence["Answer"] | Mapping[str, "Answer"]
Script: TypeAlias = Decide | Mapping[Step, Answer]


def address_of(argument: str) -> str:
    """The address between the angle brackets of a MAIL or RCPT argument; '' when there is none."""
    found = re.search(r"<([^>]*)>", argument)
    return found[1] if found else ""


class Playbook:
    """A script together with its count of what was used up."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._used: Counter[tuple[str, ...]] = Counter()

    def action(self, moment: Moment) -> Action:
        if callable(self.script):
            return self.script(moment)
        if moment.default[:1] in ("4", "5") and moment.step != "idle":
            return None
        return self._pick(self.script.get(moment.step), moment, (moment.step,))

    def _pick(self, answer: Answer, moment: Moment, path: tuple[str, ...]) -> Action:
        match answer:
            case str() | None:
                return answer
            case BySession(answers):
                if moment.session >= len(answers):
                    return None
                return self._pick(answers[moment.session], moment, (*path, f"session {moment.session}"))
            case Mapping():
                for pattern, inner in answer.items():
                    if fnmatchcase(moment.address.lower(), pattern.lower()):
                        return self._pick(inner, moment, (*path, pattern))
                return None
            case Sequence():
                turn = self._used[path]
                self._used[path] += 1
                return self._pick(answer[turn], moment, (*path, str(turn))) if turn < len(answer) else None
            case _ if callable(answer):
                return answer(moment)
            case _:
                return answer


def verdict(action: Action, default: str) -> str:
    """The reply that counts for the server's own state: '' when nothing is said that a client could read."""
    match action:
        case None:
            return default
        case str():
            return action
        case Delay(_, then) | Wait(_, then) | Stall(_, then):
            return verdict(then, default)
        case Drip(reply):
            return default if reply is None else reply
        case Split(parts):
            return b"".join(parts).decode("utf-8", "replace")
        case ReplyThenClose(reply) | ReplyThenReset(reply):
            return reply
        case Hang(taken) | Close(taken) | Reset(taken):
            return "250 taken" if taken else ""
        case _:
            return ""
