"""The policy check: what is decided from which facts."""

from __future__ import annotations

import pytest

from relay.mail.envelope import Envelope
from relay.policy.check import (
    FULL,
    UNWRITABLE,
    Accept,
    Decision,
    PolicyFacts,
    Refuse,
    check,
    check_capacity,
)

ENVELOPE = Envelope("a@x.test", ())


@pytest.mark.parametrize(
    ("facts", "decision"),
    [
        (PolicyFacts(), Accept()),
        (PolicyFacts(limits_reached=["queue full: max_bytes"]), Refuse(FULL, "busy")),
        (PolicyFacts(store_failure="full"), Refuse(FULL, "busy")),
        (PolicyFacts(store_failure="unwritable"), Refuse(UNWRITABLE, "busy")),
        (PolicyFacts(["queue full: max_messages"], "unwritable"), Refuse(FULL, "busy")),
    ],
)
def test_a_full_queue_or_a_store_that_fails_lets_no_message_begin(facts: PolicyFacts, decision: Decision) -> None:
    assert check_capacity(facts) == decision


@pytest.mark.parametrize(
    "facts",
    [
        PolicyFacts(limits_reached=["queue full: max_bytes"], free_bytes=1),
        PolicyFacts(store_failure="full"),
        PolicyFacts(store_failure="unwritable"),
        PolicyFacts(free_bytes=1_000, size_bytes=1_000),
        PolicyFacts(free_bytes=None, size_bytes=1_000),
    ],
)
def test_a_message_whose_content_came_in_is_tried(facts: PolicyFacts) -> None:
    assert check(facts) == Accept()


def test_a_content_larger_than_the_free_space_is_refused_before_it_is_written() -> None:
    assert check(PolicyFacts(free_bytes=1_000, size_bytes=1_001)) == Refuse(FULL, "busy")


def test_the_relay_s_own_trouble_is_never_permanent() -> None:
    assert FULL.code == 452
    assert UNWRITABLE.code == 451
