"""A log line is logfmt throughout: `time` (RFC 3339, UTC), `level`, `event` and the event's values."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from relay.logfmt import LogLine, LongText, logfmt
from relay.observe.log_output import JsonFormatter, LogfmtFormatter, LogOptions

PAIRS = re.compile(r'[a-z_]+=(?:[!#-<>-\[\]-~]+|"(?:[^"\\]|\\.)*")(?: [a-z_]+=(?:[!#-<>-\[\]-~]+|"(?:[^"\\]|\\.)*"))*')


def record(created: float, message: str | LogLine, *args: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("relay.mail", logging.INFO, "", 0, message, args, None)
    made.created, made.msecs = created, (created - int(created)) * 1000
    made.__dict__.update(more)
    return made


@pytest.fixture(params=["UTC", "Europe/Berlin", "Pacific/Kiritimati"])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The machine's time zone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


@pytest.mark.parametrize("created", [1_800_000_000.0, 1_800_000_000.25, 1_800_000_000.999, 1_800_000_001.5])
def test_a_lines_time_is_utc_in_every_zone(zone: str, created: float) -> None:
    lines = LogfmtFormatter()
    for at in (created, created, created + 60):
        when, rest = lines.format(record(at, logfmt("sent", id=1))).split(" ", 1)
        assert rest == "level=info event=sent id=1"
        moment = datetime.fromisoformat(when.removeprefix("time="))
        assert (when[-1], moment.utcoffset()) == ("Z", timedelta(0))
        assert abs((moment - datetime.fromtimestamp(at, UTC)).total_seconds()) < 0.0011


def test_a_line_begins_with_time_and_level() -> None:
    assert (
        LogfmtFormatter().line(1_800_000_000.25, "WARNING", logfmt("x"))
        == "time=2027-01-15T08:00:00.250Z level=warning event=x"
    )


@pytest.mark.parametrize("text", ["it failed", 'said "no"', "two\nlines", "user=a event=b", "ä", ""])
def test_the_text_of_a_library_is_one_value(text: str) -> None:
    line = LogfmtFormatter().format(record(1_800_000_000.25, text.replace("%", "%%"), name="asyncio"))
    assert PAIRS.fullmatch(line)
    head, _, value = line.partition(" text=")
    assert head == "time=2027-01-15T08:00:00.250Z level=info event=log source=asyncio"
    assert (json.loads(value) if value.startswith('"') else value) == text


@pytest.mark.parametrize("message", ["it failed", logfmt("http_error_traceback")], ids=str)
def test_an_exception_stands_on_its_line(message: str | LogLine) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        one = record(1_800_000_000.25, message, exc_info=sys.exc_info())
    line = LogfmtFormatter().format(one)
    assert PAIRS.fullmatch(line)
    assert "ValueError: broken" in json.loads(line.partition(" traceback=")[2])


def test_a_json_line_has_the_same_keys_and_numbers_stay_numbers() -> None:
    said = logfmt("sent", id="01J", total_ms=41.26, code=250, ok=True, upstream=None, reason=LongText("x" * 3000))
    shown = json.loads(JsonFormatter().format(record(1_800_000_000.25, said)))
    assert list(shown)[:3] == ["time", "level", "event"]
    assert shown == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "event": "sent",
        "id": "01J",
        "total_ms": 41.3,
        "code": 250,
        "ok": True,
        "reason": "x" * 2000,
    }


@pytest.mark.parametrize("text", ["it failed", "two\nlines", 'a "quote"', "event=forged", "\x1b[31m", "ü\ud800"])
def test_the_text_of_a_library_is_one_json_value(text: str) -> None:
    line = JsonFormatter().format(record(1_800_000_000.25, text.replace("%", "%%"), name="asyncio"))
    assert line.isascii()
    assert "\n" not in line
    shown = json.loads(line)
    assert (shown["event"], shown["source"], shown["text"]) == ("log", "asyncio", text)


@pytest.mark.parametrize("options", [LogOptions(), LogOptions("DEBUG", "json"), LogOptions("WARNING", "logfmt")])
def test_the_options_reach_another_process_as_one_word(options: LogOptions) -> None:
    assert LogOptions.of(options.word) == options
