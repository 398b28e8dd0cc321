"""The demo's picture and lines, on values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relay.demo import view
from relay.demo.history import (
    BULK,
    CODES,
    FAST,
    NOTHING_SENT,
    SLOW,
    Burst,
    History,
    LaneSeen,
    Note,
    Point,
    UpstreamSeen,
)
from relay.demo.onequeue import OneQueue
from relay.demo.plot import clock, plot, row_of
from relay.demo.terminal import is_unicode

UP = UpstreamSeen("up", 4.0, 0.0, 0)
NOW = view.Moment(
    now_s=42.4,
    url="http://127.0.0.1:8025/",
    points=(
        *(Point(float(second), "otp", 0.03) for second in range(42)),
        *(Point(float(second), "bulk", 0.7 * second) for second in range(42)),
        *(Point(float(second), "one queue", 3.0 * second) for second in range(42)),
    ),
    notes=(Note(9.0, "first"), Note(30.0, "second", is_bad=True)),
    lanes={CODES: LaneSeen(168, 0, 0.031, 0.03, 0.052), BULK: LaneSeen(512, 1204, 29.2, 12.0, 30.0)},
    upstreams={FAST: UP, SLOW: UpstreamSeen("up", 0.0, 12.1, 14)},
    one_queue_s=98.2,
    ahead=1180,
    rate_per_s=12.0,
)
PLAIN = view.Style(colour=False)


def test_the_picture_fills_80_columns_and_24_rows_and_tells_all() -> None:
    lines = view.picture(NOW, PLAIN)
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("otp-relay demo  console: http://127.0.0.1:8025/ ")
    assert lines[0].endswith(" 0:42")
    text = "\n".join(lines)
    for part in (
        "● codes 168 sent, 0 waiting: median 30 ms, last 31 ms, slowest 52 ms",
        "░ bulk  512 sent, 1,204 waiting: median 12 s, last 29 s, slowest 30 s",
        "× one queue for all would have taken 98 s (1,180 ahead at 12/s)",
        "  fast  up      4.0 codes/s   0.0 bulk/s",
        "  slow  up      0.0 codes/s  12.1 bulk/s  14 refused with 4xx",
        "   0:30 second",
    ):
        assert part in text
    assert lines[-1] == "k kill fast   b burst of 50 codes   q quit"


def test_both_lanes_are_on_one_axis_and_codes_stay_below() -> None:
    lines = view.picture(NOW, PLAIN)
    codes = [at for at, one in enumerate(lines[2:13]) if "●" in one]
    bulk = [at for at, one in enumerate(lines[2:13]) if "░" in one]
    assert len(codes) == 1
    assert len(bulk) > 3
    assert min(codes) > sorted(bulk)[len(bulk) // 2]


def test_a_plot_scrolls_once_its_columns_are_full() -> None:
    points = [Point(second + 0.5, "otp", 0.03) for second in range(300)]
    *rows, _, labels = ("".join(span.text for span in line) for line in plot(points, 299.9, 80, 8))
    assert [row.count("●") for row in rows if "●" in row] == [70]
    assert "4:00" in labels
    assert "0:00" not in labels


@pytest.mark.parametrize(
    ("took_s", "row"), [(0.0, 0), (0.01, 0), (0.1, 2), (1.0, 4), (60.0, 8), (600.0, 10), (1e6, 10)]
)
def test_a_duration_has_its_row_and_the_axis_has_an_end(took_s: float, row: int) -> None:
    assert row_of(took_s, 11) == row


@pytest.mark.parametrize(("columns", "rows"), [(20, 5), (40, 10), (49, 40), (60, 16), (80, 19), (1, 1), (200, 60)])
def test_no_line_is_longer_and_no_picture_higher_than_the_terminal(columns: int, rows: int) -> None:
    lines = view.picture(NOW, replace(PLAIN, columns=columns, rows=rows))
    assert len(lines) == rows
    assert max(map(len, lines)) <= columns


def test_a_low_terminal_has_the_figures_without_the_plot() -> None:
    text = "\n".join(view.picture(NOW, replace(PLAIN, rows=10)))
    assert "10 min" not in text
    assert "168 sent" in text
    assert "k kill fast" in text


def test_without_utf_8_the_picture_is_ascii() -> None:
    text = "\n".join(view.picture(NOW, replace(PLAIN, unicode=False)))
    assert text.isascii()
    assert "o codes 168" in text
    assert ": bulk  512" in text


def test_colours_change_nothing_but_the_colours() -> None:
    coloured = view.picture(NOW, view.Style(colour=True))
    bare = [line.replace("\x1b[0m", "") for line in coloured]
    for code in view.ROLES.values():
        bare = [line.replace(f"\x1b[{code}m", "") for line in bare]
    assert coloured != bare
    assert bare == view.picture(NOW, PLAIN)


def test_a_dead_upstream_says_where_codes_go() -> None:
    down = replace(NOW, upstreams={**NOW.upstreams, FAST: UP._replace(state="down")}, is_fast_killed=True)
    text = "\n".join(view.picture(down, PLAIN))
    assert "fast  DOWN    4.0 codes/s   0.0 bulk/s  fast is down: codes go by slow" in text
    assert "k revive fast" in text
    assert view.line(down).endswith(" | not up: fast")


def test_a_terminal_without_keys_names_none() -> None:
    assert "quit" not in "\n".join(view.picture(NOW, replace(PLAIN, keys=False)))


def test_the_plain_line_has_the_same_figures() -> None:
    assert view.line(NOW) == (
        "  42 s | otp: 168 sent, median 30 ms, slowest 52 ms, 0 waiting"
        " | bulk: 512 sent, median 12 s, slowest 30 s, 1204 waiting | one queue for all would have taken 98 s"
    )


DURATIONS = [
    (None, "-"),
    (0.0314, "31 ms"),
    (0.9996, "1.0 s"),
    (9.94, "9.9 s"),
    (9.96, "10 s"),
    (119.4, "119 s"),
    (200.0, "3 min 20 s"),
]


@pytest.mark.parametrize(("seconds", "text"), DURATIONS)
def test_a_duration_is_short_and_has_its_unit(seconds: float | None, text: str) -> None:
    assert view.duration(seconds) == text


def test_a_time_has_hours_when_there_are_some() -> None:
    assert [clock(one) for one in (5.9, 65, 3661)] == ["0:05", "1:05", "1:01:01"]


def event(kind: str, lane: str, message: str, upstream: str | None = None, after_ms: float = 0.0) -> dict[str, Any]:
    return {"kind": kind, "lane": lane, "message": message, "upstream": upstream, "after_ms": after_ms}


def live(fast: str = "up", bulk_waiting: int = 0) -> dict[str, Any]:
    return {
        CODES: {"queue": {}, "upstreams": {FAST: {"state": fast}, SLOW: {"state": "up"}}},
        BULK: {"queue": {"queued": bulk_waiting, "sending": 1}, "upstreams": {SLOW: {"state": "up"}}},
    }


def test_one_queue_is_what_is_ahead_by_the_measured_rate() -> None:
    queue = OneQueue()
    for number in range(101):
        queue.bulk_accepted(f"m{number}")
    assert queue.code_would_take_s(0.03) is None
    for number in range(21):
        queue.bulk_tried(f"m{number}", number / 10)
        queue.bulk_tried(f"m{number}", number / 10)  # a second try isn't counted
    assert queue.ahead == 80
    assert queue.rate_per_s == pytest.approx(10)
    assert queue.code_would_take_s(0.03) == pytest.approx(8.03)


def test_one_queue_forgets_an_old_rate() -> None:
    queue = OneQueue()
    for number in range(300):
        queue.bulk_accepted(f"m{number}")
    for number in range(200):
        queue.bulk_tried(f"m{number}", number / 10)  # 20 s at 10/s
    for number in range(100):
        queue.bulk_tried(f"m{200 + number}", 20 + number / 2)  # then 2/s
    assert queue.rate_per_s == pytest.approx(2)


def test_the_history_counts_what_the_stream_says() -> None:
    history = History()
    history.live(live(bulk_waiting=6), 0.0)
    for number in range(40):
        history.mail(event("accepted", BULK, f"b{number}"), 0.0)
    for number in range(20):
        history.mail(event("sent", BULK, f"b{number}", SLOW, 1000.0 * number), number / 10)
    history.mail(event("deferred", BULK, "b20", SLOW), 2.0)
    history.mail(event("sent", CODES, "c1", FAST, 31.0), 2.0)
    history.mail(event("sent", CODES, "c2", SLOW, 41.0), 2.1)
    assert history.lane(CODES)._replace(median_s=None) == LaneSeen(2, 0, 0.041, None, 0.041)
    assert history.lane(CODES).median_s == pytest.approx(0.036)
    assert history.lane(BULK).waiting == 7
    assert history.upstream(SLOW, 4.0) == UpstreamSeen("up", 0.25, 5.0, 1)
    assert history.upstream(SLOW, 60.0) == UpstreamSeen("up", 0.0, 0.0, 1)
    assert history.one_queue_last_s() == pytest.approx(19 / 10 + 0.041)
    assert view.summary(history) == [
        "In one queue for all, the median code would have taken 1.9 s.",
        "2 codes reached their upstream (p50 36 ms, slowest 41 ms; 2 excellent)"
        " beside 20 bulk messages sent and 7 still waiting.",
    ]


def test_a_history_of_nothing_has_a_summary() -> None:
    history = History()
    assert history.lane(CODES) == NOTHING_SENT
    assert view.summary(history) == [
        "0 codes reached their upstream (p50 -, slowest -; none sent) beside 0 bulk messages sent and 0 still waiting."
    ]


def test_the_death_and_the_return_of_the_fast_upstream_are_noted_once() -> None:
    history = History()
    for at, state in enumerate(("up", "down", "half-open", "down", "up", "up")):
        history.live(live(state), float(at))
    assert [(note.at_s, note.text) for note in history.notes_since(0)] == [
        (1.0, "fast is down: codes go by slow"),
        (4.0, "fast is back: codes go by fast again"),
    ]
    assert history.notes_since(1) == [Note(4.0, "fast is back: codes go by fast again")]


def test_a_burst_is_noted_when_its_last_code_is_sent() -> None:
    history = History()
    burst = Burst(["c1", "c2"])
    history.burst(burst)
    history.mail(event("sent", CODES, "c1", FAST, 31.0), 1.0)
    burst.is_handed_over = True
    history.live(live(), 1.0)
    assert history.noted == 0
    history.mail(event("sent", CODES, "c2", FAST, 86.0), 1.0)
    history.live(live(), 2.0)
    history.live(live(), 3.0)
    assert [note.text for note in history.notes] == ["burst: 2 codes are sent, each within 31 to 86 ms"]


@pytest.mark.parametrize(
    ("environment", "encoding", "answer"),
    [
        ({}, "utf-8", True),
        ({"LANG": "de_DE.UTF-8"}, "utf-8", True),
        ({"LANG": "de_DE.utf8"}, "UTF-8", True),
        ({"LANG": "de_DE.ISO-8859-1"}, "iso8859-1", False),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, "utf-8", False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "utf-8", False),
        ({"LC_CTYPE": "C.UTF-8"}, "utf-8", True),
        ({"LC_ALL": "C.UTF-8"}, "utf-8", True),
    ],
)
def test_the_locale_says_whether_the_terminal_shows_utf_8(
    environment: dict[str, str], encoding: str, answer: bool
) -> None:
    assert is_unicode(environment, encoding) is answer
