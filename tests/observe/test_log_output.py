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

from relay.observe.log_output import LogfmtFormatter

PAIRS = re.compile(r'[a-z_]+=(?:[!#-<>-\[\]-~]+|"(?:[^"\\]|\\.)*")(?: [a-z_]+=(?:[!#-<>-\[\]-~]+|"(?:[^"\\]|\\.)*"))*')


def record(created: float, message: str, *args: object, **more: object) -> logging.LogRecord:
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
        when, rest = lines.format(record(at, "event=%s id=%d", "sent", 1)).split(" ", 1)
        assert rest == "level=info event=sent id=1"
        moment = datetime.fromisoformat(when.removeprefix("time="))
        assert (when[-1], moment.utcoffset()) == ("Z", timedelta(0))
        assert abs((moment - datetime.fromtimestamp(at, UTC)).total_seconds()) < 0.0011


def test_a_line_begins_with_time_and_level() -> None:
    assert (
        LogfmtFormatter().line(1_800_000_000.25, "WARNING", "event=x")
        == "time=2027-01-15T08:00:00.250Z level=warning event=x"
    )


@pytest.mark.parametrize("text", ["it failed", 'said "no"', "two\nlines", "user=a event=b", "ä", ""])
def test_the_text_of_a_library_is_one_value(text: str) -> None:
    line = LogfmtFormatter().format(record(1_800_000_000.25, text.replace("%", "%%"), name="asyncio"))
    assert PAIRS.fullmatch(line)
    head, _, value = line.partition(" text=")
    assert head == "time=2027-01-15T08:00:00.250Z level=info event=log source=asyncio"
    assert (json.loads(value) if value.startswith('"') else value) == text


@pytest.mark.parametrize("message", ["it failed", "event=http_error_traceback"])
def test_an_exception_stands_on_its_line(message: str) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        one = record(1_800_000_000.25, message, exc_info=sys.exc_info())
    line = LogfmtFormatter().format(one)
    assert PAIRS.fullmatch(line)
    assert "ValueError: broken" in json.loads(line.partition(" traceback=")[2])
