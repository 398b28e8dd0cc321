"""What the feedback process counts, on its way to the main process's metrics: increments, a few times a second."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Any, Literal, NamedTuple, get_args

from relay.observe.metrics import Metrics

MOST_OBSERVATIONS = 2_000
"""of times, kept until they are reported"""
MOST = 1e12
"""of one number in a report"""
Result = Literal["accepted", "refused", "unreadable", "too_large", "unavailable"]
"""the label of `relay_webhook_requests_total`"""
RESULTS = frozenset(get_args(Result))
TASKS = frozenset(
    {
        "feedback_files",
        "follow_events",
        "feedback_effects",
        "feedback_report",
        "objectives",
        "prune_events",
        "mx_lookups",
        "receiver",
        "removed_receivers",
        "posts_waiting",
        "loop",
    }
)
POSTS = frozenset({"delivered", "failed", "dead"})
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


class Arrival(NamedTuple):
    """A first delivered event. `after_s`: from the app's final dot."""

    lane: str
    provider: str
    after_s: float
    upstream: str
    trace_id: str | None = None
    """of a trace that is recorded"""


class Counts:
    """Increments since the last report."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.events: Counter[tuple[str, str]] = Counter()
        self.posts: Counter[str] = Counter()
        self.objectives: Counter[tuple[str, bool]] = Counter()
        """by lane, and whether its objective was met"""
        self.tasks: Counter[str] = Counter()
        """background tasks that failed and were started again"""
        self.inbox: list[Arrival] = []
        self.backlog: tuple[int, float] | None = None
        """posts that wait, and the age of the oldest in seconds; None: not counted since"""

    def observe_inbox(self, arrival: Arrival) -> None:
        if len(self.inbox) < MOST_OBSERVATIONS:
            self.inbox.append(arrival)

    def take(self) -> dict[str, Any] | None:
        """All of it, as JSON; none of it is reported again. None: there is nothing."""
        if not (
            self.requests or self.events or self.posts or self.objectives or self.tasks or self.inbox or self.backlog
        ):
            return None
        taken = {
            "requests": [[*key, count] for key, count in self.requests.items()],
            "events": [[*key, count] for key, count in self.events.items()],
            "posts": list(self.posts.items()),
            "objectives": [[*key, count] for key, count in self.objectives.items()],
            "tasks": list(self.tasks.items()),
            "inbox": self.inbox,
            "backlog": self.backlog,
        }
        Counts.__init__(self)
        return taken


def add(metrics: Metrics, given: Any, upstreams: Collection[str], lanes: Collection[str]) -> list[Arrival]:
    """Add a report to the metrics, and return what was delivered, of upstreams and lanes that are known. Label values
    that the configuration doesn't know are `other`. Raises ValueError, TypeError, KeyError, AttributeError where it
    isn't well formed; what stood before the fault is added."""
    for upstream, result, count in given["requests"]:
        metrics.webhook_requests[_known(upstream, upstreams), _known(result, RESULTS)].inc(_number(count))
    for upstream, kind, count in given["events"]:
        metrics.count_event(_known(upstream, upstreams), str(kind), _number(count))
    for result, count in given["posts"]:
        metrics.event_posts[(_known(result, POSTS),)].inc(_number(count))
    for lane, is_good, count in given["objectives"]:
        if lane in lanes:
            metrics.count_objective(lane, is_good=bool(is_good), count=_number(count))
    for task, count in given["tasks"]:
        metrics.restarts[(_known(task, TASKS),)].inc(_number(count))
    if given["backlog"] is not None:
        waiting, oldest_s = map(_number, given["backlog"])
        metrics.posts_waiting.set(waiting)
        metrics.posts_oldest_s.set(oldest_s)
    arrivals: list[Arrival] = []
    for lane, provider, seconds, upstream, trace in given["inbox"]:
        if lane in lanes:
            known_trace = trace if isinstance(trace, str) and _TRACE_ID.fullmatch(trace) else None
            arrival = Arrival(lane, str(provider), _number(seconds), str(upstream), known_trace)
            exemplar = None if known_trace is None else {"trace_id": known_trace}
            metrics.observe_inbox(arrival.lane, arrival.provider, arrival.after_s, exemplar)
            if upstream in upstreams:
                arrivals.append(arrival)
    return arrivals


def _known(value: Any, known: Collection[str]) -> str:
    return value if isinstance(value, str) and value in known else "other"


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        raise ValueError("not a number")
    return float(value)
