"""What goes again to an upstream that knows idempotency keys, and when it goes elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from relay.config.model import Lane
from relay.delivery import repeat
from relay.delivery.message import Pending
from relay.delivery.verdict import Verdict
from relay.mail.envelope import Recipient
from relay.mail.reply import Reply
from relay.store.model import OpenRecipient, Repeat, Selection
from relay.upstream.attempt import Report
from relay.upstream.base import Upstream as AnyUpstream
from relay.upstream.results import LOST, Result
from tests.delivery.harness import config, delivering, outcomes, until
from tests.delivery.test_api import CODE, api
from tests.support.api import ApiServer, CloseBefore, Taken
from tests.support.esps import Esp
from tests.support.upstream import Upstream

NOW = 1_000_000.0


class Way:
    """As much of an upstream as is looked at."""

    def __init__(self, name: str, via: str = "smtp", repeats_for_s: float = 0.0) -> None:
        self.name, self.via, self.repeats_for_s = name, via, repeats_for_s


API, SMTP, OTHER = Way("esp", "api", 3600.0), Way("esp"), Way("other")
WAYS = cast(list[AnyUpstream], [OTHER, API, SMTP])


def pending(position: int = 0, until: float | None = None, *, crashed: bool = False) -> Pending:
    known = None if until is None else Repeat("esp", until, "k")
    one = OpenRecipient(position, Recipient("u@example.net"), repeat=known, crashed=crashed)
    return Pending(one, repeat=known)


def lane(*, express: bool = True) -> Lane:
    return config({"a": {"host": "a.example.com"}}, express=express).lanes["otp"]


def report(outcome: Any, reply: Reply = LOST, *, knows_for_s: float = 3600.0) -> Report:
    return Report(
        "esp", 0.0, "warm", (Result(0, outcome, reply, "dot"),), {}, via="api", knows_for_s=knows_for_s, key="k"
    )


def order(*of: Pending) -> list[tuple[tuple[int, ...], list[Any]]]:
    return [(turn.positions, list(turn.ways)) for turn in repeat.turns(of, WAYS, NOW)]


def test_only_the_upstream_that_may_have_it_is_asked_for_a_time() -> None:
    assert order(pending(0), pending(1, NOW + 1)) == [((0,), [OTHER, API, SMTP]), ((1,), [API])]


def test_then_it_is_asked_first_and_never_by_its_other_way() -> None:
    assert order(pending(0, NOW)) == [((0,), [API, OTHER])]


def test_after_a_crash_an_upstream_that_would_know_the_request_is_asked_first() -> None:
    assert order(pending(crashed=True)) == [((0,), [API, OTHER, SMTP])]


def test_a_code_is_repeated_for_30_seconds_and_bulk_mail_as_long_as_the_key_is_known() -> None:
    code = repeat.after(None, report("ambiguous"), Verdict.UNKNOWN, NOW, lane())
    bulk = repeat.after(None, report("ambiguous"), Verdict.UNKNOWN, NOW, lane(express=False))
    assert code == Repeat("esp", NOW + 30, "k")
    assert bulk == Repeat("esp", NOW + 3600 - repeat.SPARE_S, "k")


@pytest.mark.parametrize("verdict", [Verdict.TRY_NEXT, Verdict.WITHDRAWN])
def test_a_refusal_for_now_says_nothing_of_the_request_before(verdict: Verdict) -> None:
    known = Repeat("esp", NOW + 1, "k")
    assert repeat.after(known, report("deferred"), verdict, NOW, lane()) == known
    assert repeat.after(known, report("deferred"), verdict, NOW + 1, lane()) is None


def test_nothing_is_repeated_where_there_are_no_keys() -> None:
    assert repeat.after(None, report("ambiguous", knows_for_s=0.0), Verdict.UNKNOWN, NOW, lane()) is None


async def test_it_waits_for_an_api_that_is_down_and_goes_there_once_it_is_back(tmp_path: Path) -> None:
    async with ApiServer([Taken(esp := Esp("resend"), CloseBefore())] * 2 + [esp]) as server, Upstream() as smtp:
        settings = config({"api": api("resend", server.url), "smtp": smtp}, retry=(0.3,))
        async with delivering(tmp_path, settings) as bench:
            id_ = await bench.send("u@example.net", content=CODE)
            await server.wait_for(2)
            await server.pause()
            server.reset_connections()
            await until(lambda: bench.delivery.lane("otp").upstreams[0].circuit.state != "closed")
            waiting = await bench.ended(id_, "deferred")
            assert outcomes(waiting) == [("api", "ambiguous")] * 2
            await bench.delivery.act("retry", Selection(ids=(id_,)))
            await server.resume()
            view = await bench.ended(id_)
        assert outcomes(view)[-1] == ("api", "sent")
        assert len(esp.mails) == 1
        assert smtp.messages == []
