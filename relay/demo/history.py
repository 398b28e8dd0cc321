"""What the demo has seen of the relay: events of mail and the lanes' state, as values for the picture. Pure."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, NamedTuple

from relay.demo.onequeue import OneQueue
from relay.observe.bands import Band, band

CODES, BULK = "otp", "bulk"
FAST, SLOW = "fast", "slow"
RATES_OVER_S = 5.0
POINTS = 10_000
"""that are kept for the plot: there are some 20 a second, and a column shows a second"""
LATEST = 1_000
"""deliveries of a lane that the picture's median is about"""
NOTES = 50
CODES_REMEMBERED = 2_000

Series = Literal["otp", "bulk", "one queue"]
ONE_QUEUE: Series = "one queue"


class Point(NamedTuple):
    """One delivery: when it ended (seconds since the demo began), and how long it took from the app's final dot on."""

    at_s: float
    series: Series
    took_s: float


class Note(NamedTuple):
    """A sentence on something that happened."""

    at_s: float
    text: str
    is_bad: bool = False


class LaneSeen(NamedTuple):
    """A lane, since the demo began. Times are None while nothing was sent."""

    sent: int
    waiting: int
    last_s: float | None
    median_s: float | None
    slowest_s: float | None


NOTHING_SENT = LaneSeen(0, 0, None, None, None)


class UpstreamSeen(NamedTuple):
    """An upstream, as the relay and its events see it."""

    state: str
    """of the codes' circuit: up, down, half-open, untried"""
    codes_per_s: float
    bulk_per_s: float
    refused: int
    """tries that it refused since the demo began"""


@dataclass(slots=True)
class Burst:
    """Codes that were handed over at once."""

    ids: list[str] = field(default_factory=list)
    """of the messages that the relay has accepted"""
    is_handed_over: bool = False

    def is_sent(self, took_s: Mapping[str, float]) -> bool:
        """`took_s`: by message id, what each sent code took."""
        return self.is_handed_over and all(one in took_s for one in self.ids)

    def outcome(self, took_s: Mapping[str, float]) -> str:
        """In words, once it is sent."""
        if not self.ids:
            return "burst: the relay accepted none of its codes"
        quickest, slowest = min(took_s[one] for one in self.ids), max(took_s[one] for one in self.ids)
        return f"burst: {len(self.ids)} codes are sent, each within {quickest * 1000:.0f} to {slowest * 1000:.0f} ms"


class History:
    """Takes what `/api/stream` says. `at_s` are seconds since the demo began."""

    def __init__(self) -> None:
        self.points: deque[Point] = deque(maxlen=POINTS)
        self.notes: deque[Note] = deque(maxlen=NOTES)
        self.noted = 0
        """how many notes there were"""
        self.one_queue = OneQueue()
        self.bands: Counter[Band] = Counter()
        self._took_s: dict[str, array[float]] = {CODES: array("d"), BULK: array("d")}
        self._slowest_s = {CODES: 0.0, BULK: 0.0}
        self._would_take_s = array("d")
        self._sent_codes: dict[str, float] = {}
        self._bursts: list[Burst] = []
        self._sent: deque[tuple[float, str, str]] = deque()
        self._refused: Counter[str] = Counter()
        self._live: Mapping[str, Any] = {}
        self._is_down: set[str] = set()

    def mail(self, event: Mapping[str, Any], at_s: float) -> None:
        """An event of a message's time line."""
        lane, kind, message_id = event["lane"], event["kind"], event["message"]
        if lane == BULK and kind == "accepted":
            self.one_queue.bulk_accepted(message_id)
        elif lane == BULK and kind in ("sent", "deferred", "ambiguous"):
            self.one_queue.bulk_tried(message_id, at_s)
        if kind == "deferred":
            self._refused[event["upstream"]] += 1
        if kind == "sent" and lane in self._took_s:
            took_s = event["after_ms"] / 1000
            if lane == CODES:
                self._code_was_sent(message_id, took_s)
            self._was_sent(lane, event["upstream"], took_s, at_s)

    def burst(self, burst: Burst) -> None:
        """A note follows when all of its codes are sent."""
        self._bursts.append(burst)

    def _code_was_sent(self, message_id: str, took_s: float) -> None:
        self._sent_codes[message_id] = took_s
        if len(self._sent_codes) > CODES_REMEMBERED:
            del self._sent_codes[next(iter(self._sent_codes))]

    def _was_sent(self, lane: str, upstream: str, took_s: float, at_s: float) -> None:
        self._took_s[lane].append(took_s)
        self._slowest_s[lane] = max(self._slowest_s[lane], took_s)
        self._sent.append((at_s, lane, upstream))
        if lane == BULK:
            self.points.append(Point(at_s, "bulk", took_s))
            return
        self.points.append(Point(at_s, "otp", took_s))
        self.bands[band(took_s)] += 1
        would_take_s = self.one_queue.code_would_take_s(took_s)
        if would_take_s is not None:
            self._would_take_s.append(would_take_s)
            self.points.append(Point(at_s, ONE_QUEUE, would_take_s))

    def live(self, lanes: Mapping[str, Any], at_s: float) -> None:
        """`lanes` of `/api/live`. A change of the fast upstream's state becomes a note."""
        self._live = lanes
        for burst in [one for one in self._bursts if one.is_sent(self._sent_codes)]:
            self._bursts.remove(burst)
            self.note(at_s, burst.outcome(self._sent_codes))
        is_down = self.upstream_state(FAST) in ("down", "half-open")
        if is_down and FAST not in self._is_down:
            self._is_down.add(FAST)
            self.note(at_s, "fast is down: codes go by slow", is_bad=True)
        if not is_down and FAST in self._is_down:
            self._is_down.discard(FAST)
            self.note(at_s, "fast is back: codes go by fast again")

    def note(self, at_s: float, text: str, *, is_bad: bool = False) -> None:
        self.notes.append(Note(at_s, text, is_bad))
        self.noted += 1

    def notes_since(self, noted: int) -> list[Note]:
        """Those that came since `noted` had that value; the last ones that are kept."""
        return list(self.notes)[max(0, len(self.notes) - (self.noted - noted)) :]

    def upstream_state(self, name: str) -> str:
        state: str = self._live.get(CODES, {}).get("upstreams", {}).get(name, {}).get("state", "untried")
        return state

    def waiting(self, lane: str) -> int:
        """Recipients of a lane that are not finished."""
        return sum(self._live.get(lane, {}).get("queue", {}).values())

    def lane(self, name: str, latest: int | None = LATEST) -> LaneSeen:
        """`latest`: the deliveries that the median is about; None: all."""
        took_s = self._took_s[name]
        if not took_s:
            return NOTHING_SENT._replace(waiting=self.waiting(name))
        of = took_s if latest is None else took_s[-latest:]
        return LaneSeen(len(took_s), self.waiting(name), took_s[-1], median(of), self._slowest_s[name])

    def upstream(self, name: str, now_s: float) -> UpstreamSeen:
        while self._sent and self._sent[0][0] < now_s - RATES_OVER_S:
            self._sent.popleft()
        over_s = max(1.0, min(RATES_OVER_S, now_s))
        counts = Counter((lane, upstream) for _, lane, upstream in self._sent)
        return UpstreamSeen(
            state=self.upstream_state(name),
            codes_per_s=counts[CODES, name] / over_s,
            bulk_per_s=counts[BULK, name] / over_s,
            refused=self._refused[name],
        )

    def one_queue_last_s(self) -> float | None:
        """What the last code would have taken in one queue for all."""
        return self._would_take_s[-1] if self._would_take_s else None

    def one_queue_median_s(self) -> float | None:
        """The median of what all codes would have taken in one queue for all."""
        return median(self._would_take_s) if self._would_take_s else None
