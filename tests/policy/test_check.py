"""The policy check: what is decided from which facts."""

from __future__ import annotations

import pytest

from relay.mail.envelope import Envelope
from relay.policy.check import FULL, UNWRITABLE, Accept, Decision, PolicyFacts, Refuse, check, check_capacity


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
def test_a_full_queue_or_a_store_that_fails_refuses_mail_before_and_after_its_content(
    facts: PolicyFacts, decision: Decision
) -> None:
    assert check_capacity(facts) == decision
    assert check(Envelope("a@x.test", ()), facts) == decision


def test_the_relay_s_own_trouble_is_never_permanent() -> None:
    assert FULL.code == 452
    assert UNWRITABLE.code == 451
