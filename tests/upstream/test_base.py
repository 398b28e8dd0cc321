"""What every upstream does, whatever its protocol: circuit, window, and the calls to its watcher."""

from __future__ import annotations

import time

from relay.config.model import Upstream as Config
from relay.mail.reply import Reply
from relay.upstream.attempt import Report, Terms
from relay.upstream.base import Upstream
from relay.upstream.gate import Gate
from relay.upstream.limits import UpstreamLimits
from relay.upstream.load import Load
from relay.upstream.results import TIMED_OUT, OpenFailed
from relay.upstream.standing import Watcher
from relay.upstream.target import Target
from relay.upstream.warm import Warm
from tests.upstream.test_pool import Watch

REFUSED = OpenFailed("mail", Reply(535, "5.7.8 credentials refused: AHJlbGF5"), from_upstream=True)


class Silent(Upstream):
    """An upstream that carries nothing, and notes what it is asked for."""

    def __init__(self, *, express: bool = True) -> None:
        config = Config.model_validate({"host": "127.0.0.1", "port": 25, "tls": "none", "sessions": {"max": 8}})
        self.watch = Watch()
        super().__init__("otp", "up", config, express=express, watcher=self.watch)
        self.failures: list[OpenFailed] = []

    def start(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, load: Load, gate: Gate, terms: Terms) -> Report:
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        return {"idle": 0, "busy": 0, "opening": 0}

    @property
    def is_connected(self) -> bool:
        return False

    def probe(self, now: float) -> None:
        if self.circuit.state == "open" and now >= self.circuit.probe_at:
            self.circuit.probing()

    def warm(self) -> Warm:
        return Warm(0, "none")

    def serves(self, target: Target, limits: UpstreamLimits, *, express: bool) -> bool:
        return True

    def take_over(self, target: Target, *, open_within_s: float, watcher: Watcher) -> None: ...

    async def opened(self, within_s: float) -> None: ...

    def close_idle(self) -> None: ...

    def fail_waiting(self, failure: OpenFailed) -> None:
        self.failures.append(failure)


def state(one: Upstream) -> str:
    return one.circuit.state


def test_a_condemned_upstream_is_down_once_and_up_once_it_answers() -> None:
    one = Silent()
    one.condemn(OpenFailed("connect", TIMED_OUT))
    one.condemn(OpenFailed("connect", TIMED_OUT))
    assert state(one) == "open"
    assert len(one.failures) == 2
    one.answered()
    assert state(one) == "closed"
    assert one.watch.events == ["down connect: no answer in time", "up"]


def test_a_refusal_of_the_account_is_shown_to_operators_without_the_credentials() -> None:
    one = Silent()
    one.condemn(REFUSED)
    assert one.circuit.reason == "mail: 535 5.7.8"
    assert one.circuit.reply_text.startswith("535 5.7.8 credentials refused: ")
    assert "AHJlbGF5" not in one.circuit.reply_text


def test_an_account_refused_for_two_messages_in_a_row_opens_the_circuit() -> None:
    one = Silent()
    one.account_refused(REFUSED, "01A")
    one.account_refused(REFUSED, "01A")
    assert state(one) == "closed"
    one.account_refused(REFUSED, "01B")
    assert state(one) == "open"


def test_two_lost_connections_in_a_row_open_the_circuit() -> None:
    one = Silent()
    one.connection_lost()
    assert (state(one), one.failures) == ("closed", [])
    one.connection_lost()
    assert state(one) == "open"
    assert [failure.reason for failure in one.failures] == ["session: connection lost"]


def test_an_operator_has_an_open_circuit_probed_before_its_probe_is_due() -> None:
    one = Silent()
    one.urge()
    assert state(one) == "closed"
    one.condemn(OpenFailed("connect", TIMED_OUT))
    one.circuit.probe_at += 600.0
    one.urge()
    assert one.urged
    one.connected()
    assert state(one) == "closed"


def test_codes_have_no_window_and_bulk_mail_has_places_up_to_it() -> None:
    assert Silent().window_now() is None
    bulk = Silent(express=False)
    window = bulk.window_now()
    assert window is not None
    bulk.under_way = window - 1
    assert bulk.has_place(time.monotonic())
    bulk.under_way = window
    assert not bulk.has_place(time.monotonic())
