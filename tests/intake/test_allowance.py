"""The allowance: how much a session may do without submitting a message."""

from __future__ import annotations

from typing import Any

import pytest

from relay.intake import replies
from relay.intake.allowance import LOGIN_WITHIN_S, Allowance
from relay.mail.reply import Reply

TIMEOUT_S = 300.0


def reply(allowance: Allowance, now: float = 0.0) -> Reply | None:
    answer = allowance.exceeded(now, TIMEOUT_S)
    return None if answer is None else answer.reply


def allowance(*, commands: int = 0, rcpts: int = 0, errors: int = 0, login: bool = False) -> Allowance:
    made = Allowance(0.0, login_required=login)
    for _ in range(commands):
        made.count_command(b"NOOP")
    for _ in range(rcpts):
        made.count_command(b"RCPT")
    for _ in range(errors):
        made.count_error()
    return made


@pytest.mark.parametrize(
    ("within", "past", "expected"),
    [
        ({"errors": 49}, {"errors": 50}, replies.TOO_MANY_ERRORS),
        ({"commands": 999}, {"commands": 1_000}, replies.TOO_MANY_COMMANDS),
        ({"commands": 999, "rcpts": 5_000}, {"commands": 1_000, "rcpts": 1}, replies.TOO_MANY_COMMANDS),
    ],
)
def test_past_its_limits_a_session_ends_with_421(within: dict[str, Any], past: dict[str, Any], expected: Reply) -> None:
    assert reply(allowance(**within)) is None
    assert reply(allowance(**past)) == expected


def test_an_accepted_message_begins_the_count_anew() -> None:
    spent = allowance(commands=1_000, errors=50)
    spent.message_accepted(100.0)
    assert reply(spent, 100.0) is None
    assert reply(spent, 100.0 + 12 * TIMEOUT_S) is None
    assert reply(spent, 100.1 + 12 * TIMEOUT_S) == replies.TIMED_OUT


def test_three_wrong_logins_end_the_session() -> None:
    guessing = allowance()
    guessing.failed_logins = 2
    assert reply(guessing) is None
    guessing.failed_logins = 3
    assert reply(guessing) == replies.TOO_MANY_ERRORS


def test_a_required_login_has_a_deadline_until_it_is_there_and_again_after_starttls() -> None:
    session = allowance(login=True)
    assert session.patience_s(10.0, TIMEOUT_S) == LOGIN_WITHIN_S - 10.0
    assert reply(session, LOGIN_WITHIN_S) == replies.TIMED_OUT
    session.logged_in()
    assert session.patience_s(LOGIN_WITHIN_S, TIMEOUT_S) == TIMEOUT_S
    assert reply(session, LOGIN_WITHIN_S) is None
    session.login_required(100.0)
    assert session.patience_s(100.0, TIMEOUT_S) == LOGIN_WITHIN_S
    assert session.patience_s(1_000.0, TIMEOUT_S) > 0.0


def test_a_session_takes_turns_after_more_commands_than_a_message_needs() -> None:
    assert not allowance(commands=3, rcpts=28).takes_turns
    talkative = allowance(commands=3, rcpts=29)
    assert talkative.takes_turns
    talkative.message_accepted(1.0)
    assert not talkative.takes_turns
