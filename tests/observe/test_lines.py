"""A log line is what logging's own formatter would have made of it."""

from __future__ import annotations

import logging
import sys

import pytest

from relay.observe.lines import Lines

USUAL = logging.Formatter("%(asctime)s %(levelname)s %(message)s")


def record(created: float, message: str, *args: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("relay.mail", logging.INFO, "", 0, message, args, None)
    made.created, made.msecs = created, (created - int(created)) * 1000
    made.__dict__.update(more)
    return made


@pytest.mark.parametrize("created", [1_800_000_000.0, 1_800_000_000.25, 1_800_000_000.999, 1_800_000_001.5])
def test_a_line_is_as_logging_formats_it(created: float) -> None:
    lines = Lines()
    for at in (created, created, created + 60):
        one = record(at, "event=%s id=%d", "sent", 1)
        assert lines.format(one) == USUAL.format(one)


def test_an_exception_follows_its_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        one = record(1_800_000_000.25, "it failed", exc_info=sys.exc_info())
    assert Lines().format(one).splitlines()[0] == USUAL.format(one).splitlines()[0]
    assert "ValueError: broken" in Lines().format(one)
