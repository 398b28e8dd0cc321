"""Sessions that two processes share: never more than the upstream's max, and codes first."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.upstream.budget import WholeBudget
from relay.workers.lease import LeasedBudget, Tenant

MAX = 3


class Pool:
    """As a pool holds sessions: opens when told of room and somebody waits."""

    def __init__(self, budget: WholeBudget | LeasedBudget, *, express: bool) -> None:
        self.express = express
        self.reserved = 1 if express else 0
        self.open = 0
        self.idle = 0
        self.waiting = 0
        self._budget = budget
        budget.join(self)

    @property
    def holds(self) -> int:
        return self.open

    def want(self) -> None:
        if self.idle:
            self.idle -= 1
        else:
            self.waiting += 1
            self.room()

    def room(self) -> None:
        while self.waiting and self._budget.take(self, self.open):
            self.open += 1
            self.waiting -= 1

    def done(self) -> None:
        """A session's transaction is over."""
        if self.waiting:
            self.waiting -= 1
        elif self._budget.wanted_elsewhere(self):
            self.closed()
        else:
            self.idle += 1

    def spare(self) -> bool:
        if not self.idle:
            return False
        self.idle -= 1
        self.closed()
        return True

    def closed(self) -> None:
        self.open -= 1
        self._budget.give_back()

    @property
    def busy(self) -> int:
        return self.open - self.idle


class Wire:
    """A link whose notices arrive when the test says so, in order."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def tell(self, kind: str, value: object = None) -> None:
        self.sent.append(kind)


class TwoProcesses(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.main = WholeBudget(MAX)
        self.codes = Pool(self.main, express=True)
        self.to_main, self.to_worker = Wire(), Wire()
        self.tenant = Tenant(self.main, self.to_worker.tell)
        self.leased = LeasedBudget("up", self.to_main)  # type: ignore[arg-type]
        self.bulk = Pool(self.leased, express=False)

    @rule()
    def a_code_wants_a_session(self) -> None:
        if self.codes.waiting < 4:
            self.codes.want()

    @rule()
    def bulk_wants_a_session(self) -> None:
        if self.bulk.waiting < 4:
            self.bulk.want()

    @precondition(lambda self: self.codes.busy)
    @rule()
    def a_code_is_done(self) -> None:
        self.codes.done()

    @precondition(lambda self: self.bulk.busy)
    @rule()
    def bulk_is_done(self) -> None:
        self.bulk.done()

    @precondition(lambda self: self.codes.idle)
    @rule()
    def an_idle_session_of_codes_closes(self) -> None:
        self.codes.spare()

    @precondition(lambda self: self.to_main.sent)
    @rule()
    def the_main_process_hears(self) -> None:
        self.tenant.lease() if self.to_main.sent.pop(0) == "lease" else self.tenant.returned()

    @precondition(lambda self: self.to_worker.sent)
    @rule()
    def the_worker_hears(self) -> None:
        self.leased.granted() if self.to_worker.sent.pop(0) == "granted" else self.leased.wanted()

    @invariant()
    def never_more_than_max(self) -> None:
        assert self.codes.open + self.bulk.open <= MAX
        assert self.main.open <= MAX

    def teardown(self) -> None:
        """When everybody ends their work, a waiting code gets its session, and no place is lost."""
        for _ in range(60):
            while self.to_main.sent:
                self.the_main_process_hears()
            while self.to_worker.sent:
                self.the_worker_hears()
            if self.bulk.busy:
                self.bulk.done()
            elif self.codes.busy:
                self.codes.done()
            elif self.codes.idle:
                self.codes.spare()  # it grew old
        assert self.codes.waiting == 0
        assert self.bulk.waiting == 0
        assert self.main.open == self.codes.open + self.bulk.open


TestTwoProcesses = TwoProcesses.TestCase
TestTwoProcesses.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
