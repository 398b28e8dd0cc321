"""Sessions of an upstream shared with workers: never more than its max, codes first, and workers alike."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.upstream.fair import TURN_S, QuotaClients
from relay.upstream.quota import SessionQuota
from relay.workers.shares import UNMET_REVIEWS, Need, Share, SharedQuota, WorkerQuota

MAX = 3


class Pool:
    """Like a real pool: opens a session on capacity when messages wait."""

    def __init__(self, quota: SessionQuota, *, express: bool) -> None:
        self.express = express
        self.reserved = 1 if express else 0
        self.open = 0
        self.idle = 0
        self.waiting = 0
        self._quota = quota
        quota.join(self)

    @property
    def session_count(self) -> int:
        return self.open

    @property
    def busy(self) -> int:
        return self.open - self.idle

    def want(self) -> None:
        if self.idle:
            self.idle -= 1
        else:
            self.waiting += 1
            self.on_capacity()

    def on_capacity(self) -> None:
        while self.waiting and self._quota.acquire(self):
            self.open += 1
            self.waiting -= 1

    def done(self) -> None:
        """A session's transaction is over."""
        if self._quota.must_close(self):
            self.closed()
        elif self.waiting:
            self.waiting -= 1
        else:
            self.idle += 1

    def close_idle(self) -> bool:
        if not self.idle:
            return False
        self.idle -= 1
        self.closed()
        return True

    def closed(self) -> None:
        self.open -= 1
        self._quota.release()


class Worker:
    """A worker's pools, and the main process's side of it. Messages arrive when the test says so, in order."""

    def __init__(self, main: SessionQuota, lanes: int = 1, turn_s: float = TURN_S) -> None:
        self.needs: list[Need] = []
        self.shares: list[Share] = []
        self.messages = 0
        self.in_main = WorkerQuota(main, self.send_share)
        self.quota = SharedQuota(self.send_need, turn_s)
        self.pools = [Pool(self.quota, express=False) for _ in range(lanes)]

    def send_share(self, share: Share) -> None:
        self.messages += 1
        self.shares.append(share)

    def send_need(self, need: Need) -> None:
        self.messages += 1
        self.needs.append(need)

    @property
    def open(self) -> int:
        return sum(pool.open for pool in self.pools)

    def main_hears(self) -> None:
        if self.needs:
            self.in_main.receive(self.needs.pop(0))

    def worker_hears(self) -> None:
        if self.shares:
            self.quota.receive(self.shares.pop(0))

    def review(self) -> None:
        """As twice a second, with the status."""
        self.quota.review()
        self.in_main.on_capacity()

    def all_is_heard(self) -> None:
        while self.needs or self.shares:
            self.main_hears()
            self.worker_hears()


class SeveralProcesses(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.main = SessionQuota(MAX, turn_s=0)
        self.codes = Pool(self.main, express=True)
        self.workers = [Worker(self.main, 1, 0), Worker(self.main, 2, 0)]
        self.bulk = [pool for worker in self.workers for pool in worker.pools]
        self.most = MAX
        """sessions there may be: those that were open when the limit was lowered, until they end"""

    @property
    def pools(self) -> list[Pool]:
        return [self.codes, *self.bulk]

    @rule(which=st.integers(0, 3))
    def a_message_wants_a_session(self, which: int) -> None:
        if self.pools[which].waiting < 4:
            self.pools[which].want()

    @rule(which=st.integers(0, 3))
    def a_transaction_ends(self, which: int) -> None:
        if self.pools[which].busy:
            self.pools[which].done()

    @rule(which=st.integers(0, 3))
    def an_idle_session_grows_old(self, which: int) -> None:
        self.pools[which].close_idle()

    @rule(which=st.integers(0, 1))
    def the_main_process_hears(self, which: int) -> None:
        self.workers[which].main_hears()

    @rule(which=st.integers(0, 1))
    def a_worker_hears(self, which: int) -> None:
        self.workers[which].worker_hears()

    @rule(which=st.integers(0, 1))
    def a_worker_reviews_its_share(self, which: int) -> None:
        self.workers[which].review()

    @rule(limit=st.integers(1, 4))
    def a_reload_changes_the_limit(self, limit: int) -> None:
        self.main.resize(limit)

    @rule()
    def a_worker_dies(self) -> None:
        self.workers[0].in_main.gone()
        self.workers[0] = Worker(self.main, 1, 0)
        self.bulk[:1] = self.workers[0].pools

    @invariant()
    def never_more_than_max(self) -> None:
        self.most = max(self.main.limit, min(self.most, self.main.open))
        assert self.main.open <= self.most
        assert sum(pool.open for pool in self.pools) <= self.main.open

    def teardown(self) -> None:
        """When all work ends, each waiting message gets a session in turn, and no session is lost from the count."""
        for _ in range(300):
            for worker in self.workers:
                worker.all_is_heard()
                worker.review()
            for pool in self.pools:
                pool.on_capacity()  # as a pool does twice a second
                if pool.busy:
                    pool.done()
                elif pool.idle and pool is self.codes:
                    pool.close_idle()  # it grew old
        for worker in self.workers:
            worker.review()
            worker.all_is_heard()
        assert [pool.waiting for pool in self.pools] == [0] * 4
        assert self.main.open == sum(pool.open for pool in self.pools)
        assert self.main.open <= self.main.limit


TestSeveralProcesses = SeveralProcesses.TestCase
TestSeveralProcesses.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def busy_for(turns: int, workers: list[Worker], pools: list[Pool]) -> None:
    """All pools have endless work; their transactions end one after the other."""
    for turn in range(turns):
        for worker in workers:
            worker.all_is_heard()
        pool = pools[turn % len(pools)]
        pool.waiting = 9
        pool.on_capacity()
        if pool.busy:
            pool.done()
        for worker in workers:
            worker.all_is_heard()
            if turn % len(pools) == 0:
                worker.review()


def test_a_late_worker_gets_its_fair_share() -> None:
    main = SessionQuota(7)
    workers = [Worker(main) for _ in range(3)]
    busy_for(20, workers[:1], workers[0].pools)
    assert workers[0].open == 7
    busy_for(200, workers, [pool for worker in workers for pool in worker.pools])
    assert sorted(worker.open for worker in workers) == [2, 2, 3]


def test_two_lanes_of_one_worker_share_its_sessions() -> None:
    main = SessionQuota(6)
    worker = Worker(main, lanes=2)
    busy_for(20, [worker], worker.pools[:1])
    assert worker.open == 6
    busy_for(200, [worker], worker.pools)
    assert [pool.open for pool in worker.pools] == [3, 3]


def test_sessions_that_one_worker_doesnt_need_go_to_the_other() -> None:
    main = SessionQuota(6)
    workers = [Worker(main), Worker(main)]
    workers[0].pools[0].want()
    busy_for(100, workers, workers[1].pools)
    assert [worker.open for worker in workers] == [1, 5]


def test_a_lowered_limit_reclaims_sessions_as_they_become_idle_and_a_raised_one_gives_more() -> None:
    main = SessionQuota(6)
    workers = [Worker(main), Worker(main)]
    pools = [pool for worker in workers for pool in worker.pools]
    busy_for(100, workers, pools)
    assert [worker.open for worker in workers] == [3, 3]
    main.resize(2)
    assert main.open == 6
    busy_for(20, workers, pools)
    assert [worker.open for worker in workers] == [1, 1]
    main.resize(4)
    busy_for(20, workers, pools)
    assert [worker.open for worker in workers] == [2, 2]


def test_idle_sessions_above_a_lowered_limit_are_closed_at_once() -> None:
    main = SessionQuota(4)
    worker = Worker(main)
    (pool,) = worker.pools
    for _ in range(4):
        pool.want()
        worker.all_is_heard()
    for _ in range(4):
        pool.done()
    main.resize(1)
    worker.all_is_heard()
    assert (main.open, pool.open) == (1, 1)


def test_workers_leave_the_sessions_that_are_reserved_for_codes() -> None:
    main = SessionQuota(2)
    codes, workers = Pool(main, express=True), [Worker(main), Worker(main)]
    codes.want()
    codes.done()
    for worker in workers:
        worker.pools[0].want()
        worker.all_is_heard()
    assert (codes.open, main.open) == (1, 2)


def test_a_code_gets_the_only_session_from_a_worker_with_endless_mail() -> None:
    main = SessionQuota(1)
    codes, worker = Pool(main, express=True), Worker(main)
    busy_for(5, [worker], worker.pools)
    assert worker.open == 1
    codes.want()
    busy_for(2, [worker], worker.pools)
    assert codes.open == 1


def test_with_fewer_sessions_than_clients_each_client_has_its_turn() -> None:
    now = [0.0]
    clients = QuotaClients(turn_s=5.0, clock=lambda: now[0])
    first, second = Idle(1), Idle(0)
    clients.join(first)
    clients.join(second)
    clients.served(first)
    clients.reclaim_for(second)
    assert not clients.is_reclaimed(first)
    now[0] = 5.0
    clients.reclaim_for(second)
    assert clients.is_reclaimed(first)
    assert not clients.is_reclaimed(first)
    assert clients.fewest_sessions_first()[0] is second


class Idle:
    """A client with places, none of them idle."""

    express = False
    reserved = 0

    def __init__(self, holds: int) -> None:
        self.session_count = holds

    def close_idle(self) -> bool:
        return False

    def on_capacity(self) -> None: ...


def test_a_worker_sends_nothing_while_its_need_stays_the_same() -> None:
    main = SessionQuota(4)
    worker = Worker(main)
    busy_for(20, [worker], worker.pools)
    assert worker.open == 4
    before = worker.messages
    busy_for(200, [worker], worker.pools)
    (pool,) = worker.pools
    pool.closed()  # as after its last message; the next one is opened within the share
    busy_for(1, [worker], worker.pools)
    assert (worker.open, worker.messages) == (4, before)


def test_sessions_that_a_worker_no_longer_uses_go_to_another_after_a_review() -> None:
    main = SessionQuota(4)
    first, second = Worker(main), Worker(main)
    busy_for(20, [first], first.pools)
    (pool,) = first.pools
    pool.waiting = 0
    while pool.busy:
        pool.done()
    while pool.close_idle():
        pass
    assert main.open == 4
    for _ in range(UNMET_REVIEWS):
        first.review()
        first.all_is_heard()
    assert main.open == 0
    busy_for(20, [second], second.pools)
    assert second.open == 4


def test_a_dead_workers_share_comes_back_at_once() -> None:
    main = SessionQuota(4)
    dead, other = Worker(main), Worker(main)
    busy_for(20, [dead], dead.pools)
    dead.in_main.gone()
    busy_for(20, [other], other.pools)
    assert other.open == 4


def test_a_share_that_a_worker_has_not_heard_of_yet_counts_as_used() -> None:
    main = SessionQuota(2)
    worker = Worker(main)
    worker.pools[0].want()
    worker.main_hears()
    (share,) = worker.shares
    worker.in_main.receive(Need(share.number - 1, 0, 0, 0))
    assert (share.limit, main.open) == (1, 1)
