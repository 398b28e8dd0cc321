from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.config.load import load
from relay.mail.codes.examination import Examination
from relay.mail.message import parse
from relay.routing.facts import Facts, Headers
from relay.routing.router import Route, Router

HEAD = """\
listen: [{address: 127.0.0.1:2525}, {address: unix:/run/otp.sock, lane: otp}, {address: 127.0.0.1:2526}]
upstreams:
  fast: {host: 127.0.0.1, tls: none}
  slow: {host: 127.0.0.1, tls: none}
lanes:
  otp: {upstreams: [fast, slow]}
  bulk: {upstreams: slow}
rules:
"""
Rules = Callable[..., Router]


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    """A router for rules given as the text of their `match`; they are named r0, r1, ... and lead to otp."""

    def routed(*matches: str, more: str = "") -> Router:
        lines = [f"  - {{name: r{n}, match: {match}, lane: otp{more}}}\n" for n, match in enumerate(matches)]
        path = tmp_path / "relay.yaml"
        path.write_text(HEAD + "".join(lines))
        return Router(load(path, {}, machine_name=lambda: "machine").config)

    return routed


def facts(**given: Any) -> Facts:
    usual: dict[str, Any] = {
        "sender": "bounces@example.org",
        "from_addresses": ("App@Example.org",),
        "recipients": ("user@example.com",),
        "client": "10.1.2.3",
        "subject": "Your verification code: 123456",
        "headers": (("subject", "Your verification code: 123456"), ("x-kind", "Code"), ("x-kind", "Other")),
        "listener": "127.0.0.1:2525",
    }
    return Facts(**{**usual, **given})


A_CODE = Examination(parse(b"Subject: Sign in\r\n\r\nYour code is 482913.\r\n"))
NEWS = Examination(parse(b"Subject: News\r\n\r\nOrder 482913 has left our store.\r\n"))

MATCHES: list[tuple[str, dict[str, Any], bool]] = [
    # sender: the envelope's or any From address, case aside
    ("{sender: bounces@example.org}", {}, True),
    ("{sender: BOUNCES@example.org}", {}, True),
    ("{sender: app@example.org}", {}, True),
    ("{sender: [other@example.org, 'app@*']}", {}, True),
    ("{sender: second@example.org}", {"from_addresses": ("first@example.org", "second@example.org")}, True),
    ("{sender: other@example.org}", {}, False),
    ("{sender: example.org}", {}, False),
    ("{sender: '*example.org'}", {"sender": "", "from_addresses": ()}, False),
    ("{sender: '<>'}", {"sender": ""}, True),
    ("{sender: ''}", {"sender": ""}, True),
    ("{sender: '<>'}", {}, False),
    ("{sender: '*@example.org'}", {"sender": "a@sub.example.org", "from_addresses": ()}, False),
    ("{sender: '*@*.example.org'}", {"sender": "a@sub.example.org"}, True),
    ("{sender: '/@(auth|login)\\.example\\.org$/'}", {"sender": "a@login.example.org"}, True),
    ("{sender: '/APP@/'}", {}, False),
    ("{sender: '/APP@/i'}", {}, True),
    # recipient: every one
    ("{recipient: '*@example.com'}", {}, True),
    ("{recipient: '*@example.com'}", {"recipients": ("a@example.com", "b@EXAMPLE.com")}, True),
    ("{recipient: '*@example.com'}", {"recipients": ("a@example.com", "b@example.net")}, False),
    ("{recipient: ['*@example.com', '*@example.net']}", {"recipients": ("a@example.com", "b@example.net")}, True),
    ("{recipient: '*'}", {"recipients": ()}, False),
    # client
    ("{client: 10.1.0.0/16}", {}, True),
    ("{client: 10.2.0.0/16}", {}, False),
    ("{client: [10.2.0.0/16, 10.1.2.3]}", {}, True),
    ("{client: 10.1.0.0/16}", {"client": "::ffff:10.1.2.3"}, True),
    ("{client: '::ffff:10.1.0.0/112'}", {}, True),
    ("{client: '::/0'}", {}, False),
    ("{client: 'fe80::/10'}", {"client": "fe80::1%eth0"}, True),
    ("{client: [0.0.0.0/0, '::/0']}", {"client": "unix"}, False),
    ("{client: [0.0.0.0/0, '::/0']}", {"client": ""}, False),
    # subject
    ("{subject: '/verification code/i'}", {"subject": "Your Verification Code"}, True),
    ("{subject: '/verification code/'}", {"subject": "Your Verification Code"}, False),
    ("{subject: 'your*'}", {}, True),
    ("{subject: 'verification*'}", {}, False),
    ("{subject: '[App] code *'}", {"subject": "[app] Code 1"}, True),
    ("{subject: 'codé'}", {"subject": "CODÉ"}, True),
    ("{subject: 'code'}", {"subject": "co\udcffde"}, False),
    ("{subject: '/^.{4}$/'}", {"subject": "a\udcffbc"}, True),
    ("{subject: 'a*z'}", {"subject": "a\nz"}, True),
    # header: any field of that name
    ("{header: {X-Kind: code}}", {}, True),
    ("{header: {x-KIND: other}}", {}, True),
    ("{header: {X-Kind: nothing}}", {}, False),
    ("{header: {X-Other: '*'}}", {}, False),
    ("{header: {X-Kind: code, Subject: 'your*'}}", {}, True),
    ("{header: {X-Kind: code, Subject: 'my*'}}", {}, False),
    ("{header: {X-Kind: [nothing, '/^OTHER$/i']}}", {}, True),
    ("{header: {X-Kind: code}}", {"headers": (("x-kind", "  code \t"),)}, True),
    # the rest
    ("{listener: 127.0.0.1:2525}", {}, True),
    ("{listener: 127.0.0.1:2526}", {}, False),
    ("{listener: '127.0.0.1:*'}", {}, True),
    ("{priority: 4}", {"priority": 4}, True),
    ("{priority: 4}", {"priority": 9}, True),
    ("{priority: 4}", {"priority": 3}, False),
    ("{priority: 4}", {"priority": None}, False),
    ("{priority: -2}", {"priority": 0}, True),
    ("{content: otp}", {}, False),
    ("{content: otp}", {"examination": A_CODE}, True),
    ("{content: other}", {"examination": A_CODE}, False),
    ("{content: other}", {"examination": NEWS}, True),
    ("{content: otp}", {"examination": NEWS}, False),
    ("{content: otp, sender: app@example.org}", {"examination": A_CODE}, True),
    ("{content: otp, sender: other@example.org}", {"examination": A_CODE}, False),
    ("{}", {}, True),
    # every key must hold
    ("{sender: app@example.org, client: 10.1.0.0/16, subject: '/code/'}", {}, True),
    ("{sender: app@example.org, client: 10.2.0.0/16, subject: '/code/'}", {}, False),
]


@pytest.mark.parametrize(("match", "given", "holds"), MATCHES)
def test_a_rule_matches_when_every_key_of_it_holds(
    match: str, given: dict[str, Any], holds: bool, rules: Rules
) -> None:
    route = rules(match).route(facts(**given))
    assert route == (Route("otp", "r0", ("fast", "slow"), 600) if holds else Route("bulk", None, ("slow",), 172_800))


@pytest.mark.parametrize(("match", "given", "holds"), MATCHES)
def test_an_explanation_gives_reasons_exactly_for_rules_that_did_not_match(
    match: str, given: dict[str, Any], holds: bool, rules: Rules
) -> None:
    router = rules(match)
    explanation = router.explain(facts(**given))
    assert explanation.route == router.route(facts(**given))
    assert len(explanation.earlier) == (0 if holds else 1)
    assert all(step.reasons for step in explanation.earlier)


def test_the_first_rule_that_matches_wins(rules: Rules) -> None:
    router = rules("{sender: nobody@example.org}", "{subject: 'your*'}", "{}")
    assert router.route(facts()).rule == "r1"


def test_a_rule_may_narrow_and_reorder_its_lanes_upstreams(rules: Rules) -> None:
    assert rules("{}", more=", upstreams: [slow, fast]").route(facts()).upstreams == ("slow", "fast")


def test_a_listeners_own_lane_comes_before_every_rule(rules: Rules) -> None:
    router = rules("{}")
    pinned = facts(listener="unix:/run/otp.sock", listener_lane="bulk")
    assert router.route(pinned) == Route("bulk", "listener", ("slow",), 172_800)
    assert router.explain(pinned).earlier == ()


def test_headers_are_read_once_and_only_when_a_rule_needs_one(rules: Rules) -> None:
    asked: list[int] = []

    def headers() -> Headers:
        asked.append(1)
        return (("x-kind", "code"),)

    rules("{subject: nothing}").route(facts(headers=headers))
    assert asked == []
    rules("{header: {X-A: a}}", "{header: {X-B: b}}").route(facts(headers=headers))
    assert asked == [1]


def test_a_cheap_condition_that_fails_spares_the_expensive_ones(rules: Rules) -> None:
    def headers() -> Headers:
        raise AssertionError("no need to look")

    assert rules("{header: {X-Kind: code}, priority: 4}").route(facts(headers=headers)).rule is None


REASONS = [
    ("{sender: a@example.com}", "sender: bounces@example.org (envelope), App@Example.org (From) isn't a@example.com"),
    ("{recipient: ['*@a.org', '*@b.org']}", "recipient: user@example.com isn't *@a.org or *@b.org"),
    ("{client: 10.2.0.0/16}", "client: 10.1.2.3 isn't in 10.2.0.0/16"),
    ("{subject: 'nothing'}", "subject: 'Your verification code: ••••••' isn't nothing"),
    ("{header: {X-Kind: a}}", "header: X-Kind 'Code', 'Other' isn't a"),
    ("{header: {X-None: a}}", "header: there is no X-None, the rule wants a"),
    ("{priority: 4}", "priority: the message has none, the rule wants 4 or more"),
    ("{listener: 127.0.0.1:2526}", "listener: 127.0.0.1:2525 isn't 127.0.0.1:2526"),
    ("{content: otp}", "content: it is other: no code-shaped token"),
]


@pytest.mark.parametrize(("match", "reason"), REASONS)
def test_a_reason_names_the_value_and_the_wanted_pattern(match: str, reason: str, rules: Rules) -> None:
    (step,) = rules(match).explain(facts()).earlier
    assert step.reasons == (reason,)


def test_every_condition_that_does_not_hold_is_a_reason(rules: Rules) -> None:
    (step,) = rules("{sender: a@example.com, client: 10.1.0.0/16, priority: 1}").explain(facts()).earlier
    assert [reason.partition(":")[0] for reason in step.reasons] == ["priority", "sender"]


def test_an_explanation_shows_no_code(rules: Rules) -> None:
    router = rules("{header: {X-Code: a, Subject: a}, subject: b}")
    told = repr(router.explain(facts(headers=(("x-code", "code 482913"), ("subject", "482913 is your code")))))
    assert "482913" not in told
    assert "123456" not in told
