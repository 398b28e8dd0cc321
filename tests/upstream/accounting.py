"""What must hold for messages that were played: each recipient's result against what the server did."""

from __future__ import annotations

from relay.upstream.results import Result
from tests.upstream.receiver import CLOSING
from tests.upstream.sequence import Message, Played, results


def account(played: Played) -> None:
    """The server is in step: each reply answers its command, and each result is known."""
    _written(played)
    for message in played.messages:
        if message.task is None:
            continue
        for address, result in results(message).items():
            _outcome(played, message, address, result)
            _reply(played, message, address, result)


def account_out_of_step(played: Played) -> None:
    """Replies are missing, or there are more of them: no `sent` without a reply that supports it."""
    _written(played)
    supports: dict[str, int] = {}
    for message in played.messages:
        if message.task is None:
            continue
        for address, result in results(message).items():
            if result.outcome == "sent":
                assert result.reply.positive
                assert supports.setdefault(result.reply.text, message.number) == message.number, (
                    "one reply, two messages"
                )
                assert _left(played, message), address
            if result.outcome == "ambiguous":
                assert _left(played, message), address


def all_sent(played: Played) -> None:
    account(played)
    for message in played.messages:
        assert message.task is not None
        assert {each.outcome for each in results(message).values()} == {"sent"}
    assert len(played.receiver.accepted) == sum(each.recipients for each in played.messages)


def _written(played: Played) -> None:
    assert not played.receiver.errors
    written = bytes(played.wire.written)
    for message in played.messages:
        times = written.count(message.content[:-4])
        assert times <= 1, "a content is written once"
        assert message.has_opened or not times, "it waits for its gate"


def _left(played: Played, message: Message) -> bool:
    return message.content[:-4] in bytes(played.wire.written)


def _outcome(played: Played, message: Message, address: str, result: Result) -> None:
    accepted = (message.number, address) in played.receiver.accepted
    if result.outcome == "sent":
        assert accepted, f"{address} isn't sent"
    elif accepted:
        assert result.outcome == "ambiguous", f"{address} is sent, and reported {result}"
    if result.outcome == "ambiguous":
        assert _left(played, message), f"{address} can't be ambiguous"


def _reply(played: Played, message: Message, address: str, result: Result) -> None:
    """The reply is the one to this very recipient, or to its message."""
    if result.reply.is_own:
        return
    said = played.receiver.replies[int(result.reply.text)]
    own = (f"mail {message.number}", f"rcpt {address}", f"data {message.number}", f"dot {message.number}")
    assert said.to in own or said.code == CLOSING, f"{address} gets the reply to {said.to}"
    assert said.code == result.reply.code
