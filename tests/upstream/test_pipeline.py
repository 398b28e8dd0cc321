"""Messages behind each other on one session: a loss at every byte, a refusal at every reply, every cut."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat

import pytest

from tests.upstream.accounting import account, all_sent
from tests.upstream.receiver import CLOSING, Change, Receiver, refuse
from tests.upstream.sequence import BDAT, DATA, NEVER, Fate, Message, Network, Played, messages, play, results, run

MODES = pytest.mark.parametrize("extensions", [DATA, BDAT], ids=["DATA", "BDAT"])
DEPTHS = pytest.mark.parametrize("depth", range(1, 9))
WAYS = pytest.mark.parametrize(
    ("extensions", "depth"),
    [*((DATA, depth) for depth in (1, 2, 8)), *((BDAT, depth) for depth in range(1, 9))],
    ids=lambda value: "BDAT" if value == BDAT else "DATA" if value == DATA else str(value),
)
"""With DATA no more than two messages are under way: the second content waits for its 354, behind the first's reply."""


@MODES
@DEPTHS
@pytest.mark.parametrize("holds", [False, True], ids=["at once", "late"])
def test_all_are_sent_over_one_session(extensions: Sequence[str], depth: int, holds: bool) -> None:
    played = run(play(extensions, messages(12), network=Network(holds_replies=holds), depth=depth))
    all_sent(played)
    if holds:
        assert played.deepest == (depth if extensions == BDAT else min(depth, 2))


@WAYS
def test_a_loss_at_every_byte_that_the_server_reads(extensions: Sequence[str], depth: int) -> None:
    async def lost() -> None:
        whole = await play(extensions, messages(depth), network=Network(holds_replies=True), depth=depth, skips=False)
        for limit in range(len(whole.wire.written)):
            network = Network(read_limit=limit, holds_replies=True)
            account(await play(extensions, messages(depth), network=network, depth=depth, skips=False))

    run(lost())


@WAYS
def test_a_loss_at_every_byte_of_the_replies(extensions: Sequence[str], depth: int) -> None:
    async def lost() -> None:
        whole = await play(extensions, messages(depth), network=Network(holds_replies=True), depth=depth, skips=False)
        for limit in range(len(whole.receiver.out)):
            network = Network(reply_limit=limit, holds_replies=True)
            account(await play(extensions, messages(depth), network=network, depth=depth, skips=False))

    run(lost())


@WAYS
@pytest.mark.parametrize("holds", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize(
    ("code", "closes"), [(450, False), (550, False), (421, True), (421, False)], ids=["450", "550", "421 closes", "421"]
)
def test_a_refusal_at_every_reply(extensions: Sequence[str], depth: int, holds: bool, code: int, closes: bool) -> None:
    async def refused() -> None:
        whole = await play(extensions, messages(depth + 1), network=Network(holds_replies=holds), depth=depth)
        for at in range(len(whole.receiver.replies)):
            sent, receiver = messages(depth + 1), Receiver(refuse(at, code, closes=closes))
            played = await play(extensions, sent, receiver, Network(holds_replies=holds), depth=depth)
            account(played)
            if code != CLOSING and receiver.replies[at].to != "rset":
                exact(played, receiver.replies[at].to)

    run(refused())


def exact(played: Played, refused: str) -> None:
    """A refusal costs nothing but what was refused: no session, no message behind it."""
    for message in played.messages:
        concerned = refused.split()[1].rstrip("abc@r") == str(message.number)
        for address, result in results(message).items():
            is_sent = (message.number, address) in played.receiver.accepted
            assert (result.outcome == "sent") == is_sent
            assert is_sent or result.outcome in ("deferred", "refused"), address
            assert is_sent or concerned, f"{address} isn't sent: {result}"


@WAYS
def test_every_cut_of_the_replies_leads_to_the_same(extensions: Sequence[str], depth: int) -> None:
    async def cut() -> None:
        sent = messages(depth + 1)
        whole = await play(extensions, sent, network=Network(holds_replies=True), depth=depth, skips=False)
        cuts = [chain([at], repeat(NEVER)) for at in range(1, len(whole.receiver.out))]
        for delivers in [*cuts, repeat(1), repeat(2), repeat(5)]:
            sent, network = messages(depth + 1), Network(delivers=delivers, holds_replies=True)
            all_sent(await play(extensions, sent, network=network, depth=depth, skips=False))

    run(cut())


@MODES
@pytest.mark.parametrize("size", [1, 3, 7, 40])
def test_a_server_that_reads_in_pieces_gets_all_of_it(extensions: Sequence[str], size: int) -> None:
    all_sent(run(play(extensions, messages(9), network=Network(reads=repeat(size)), depth=8)))


@WAYS
@pytest.mark.parametrize("holds", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("fate", ["late", "shut", "cancelled"])
@pytest.mark.parametrize("together", [False, True], ids=["envelope first", "in one write"])
def test_a_message_whose_gate_is_not_open_costs_no_other(
    extensions: Sequence[str], depth: int, holds: bool, fate: Fate, together: bool
) -> None:
    """Whichever of them it is, and whenever its gate opens or shuts, or its attempt is cancelled."""

    async def waits() -> None:
        for which in range(depth):
            for later in (0, 1, 2, 3, 5, 8):
                sent = messages(depth)
                sent[which] = Message(which, fate=fate, later=later, in_one_write=together)
                played = await play(extensions, sent, network=Network(holds_replies=holds), depth=depth)
                account(played)
                if fate == "late":
                    all_sent(played)
                for other in sent[:which]:
                    assert {each.outcome for each in results(other).values()} == {"sent"}

    run(waits())


@MODES
@pytest.mark.parametrize("together", [False, True], ids=["envelope first", "in one write"])
def test_a_gate_that_never_opens_ends_with_the_deadline(extensions: Sequence[str], together: bool) -> None:
    sent = messages(3)
    sent[1] = Message(1, fate="late", later=-1, in_one_write=together)
    played = run(play(extensions, sent))
    account(played)
    assert {each.outcome for each in results(sent[0]).values()} == {"sent"}
    assert {each.outcome for each in results(sent[1]).values()} == {"abandoned"}


@pytest.mark.parametrize("fate", ["late", "shut", "cancelled"])
@pytest.mark.parametrize("refused", [False, True], ids=["", "behind one that is refused"])
def test_what_has_not_left_yet_costs_no_session(fate: Fate, refused: bool) -> None:
    """Nothing of it is written before its gate is open, and nothing at all when that is shut."""

    def refuses(_: int, to: str) -> Change:
        return Change(code=550 if refused and to == "dot 0" else 0)

    def look(played: Played) -> None:
        if not sent[1].has_opened:
            assert b"1@s" not in played.wire.written

    sent = messages(3)
    sent[1] = Message(1, fate=fate, later=4, in_one_write=True)
    network = Network(delivers=chain([0, 0], repeat(NEVER)))  # it begins behind the one before
    played = run(play(BDAT, sent, Receiver(refuses), network, look=look))
    account(played)
    assert {each.outcome for each in results(sent[2]).values()} == {"sent"}
    assert (b"1@s" in played.wire.written) == (fate == "late")


@MODES
@DEPTHS
def test_a_server_that_closes_behind_each_message_gets_each_that_began_once(
    extensions: Sequence[str], depth: int
) -> None:
    def closes(_: int, to: str) -> Change:
        return Change(closes=to.startswith("dot"))

    sent = messages(depth + 1)
    account(run(play(extensions, sent, Receiver(closes), Network(holds_replies=True), depth=depth)))
    assert {each.outcome for each in results(sent[0]).values()} == {"sent"}
