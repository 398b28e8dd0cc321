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
    StoreFailure,
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


def test_a_queue_that_filled_meanwhile_refuses_a_message_at_its_final_dot() -> None:
    assert check(ENVELOPE, PolicyFacts(limits_reached=["queue full: max_bytes"])) == Refuse(FULL, "busy")


@pytest.mark.parametrize("failure", [None, "full", "unwritable"])
def test_a_message_whose_content_came_in_is_tried_although_a_write_failed(failure: StoreFailure | None) -> None:
    assert check(ENVELOPE, PolicyFacts(store_failure=failure)) == Accept()


def test_the_relay_s_own_trouble_is_never_permanent() -> None:
    assert FULL.code == 452
    assert UNWRITABLE.code == 451
