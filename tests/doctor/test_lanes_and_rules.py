"""Lanes without a second upstream, and rules that can never match. By the configuration alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay.config.load import load
from relay.config.model import Config, Match
from relay.doctor import lanes, rules
from relay.routing.facts import Facts
from relay.routing.router import Router
from tests.support.relay import write_config

PASSWORD = {"password": "hunter2"}
UPSTREAMS: dict[str, dict[str, Any]] = {
    "mx1": {"host": "mx.example.net"},
    "mx2": {"host": "MX.example.net", "port": 2525},
    "other": {"host": "mx.example.com"},
    "pm": {"preset": "postmark", **PASSWORD},
    "pm-codes": {"preset": "postmark", "host": "proxy.example.com", **PASSWORD},
    "pm-by-host": {"host": "smtp.postmarkapp.com"},
    "pm-api": {"via": "api", "api": {"kind": "postmark", "key": "hunter2"}},
    "resend-api": {"via": "api", "api": {"kind": "resend", "key": "hunter2"}},
    "resend": {"preset": "resend", "via": "auto", **PASSWORD},
}


def config_with(folder: Path, names: list[str], rules_: list[dict[str, Any]] | None = None) -> Config:
    otp = {"upstreams": names, "expires": "10m"}
    bulk = {"upstreams": list(UPSTREAMS), "expires": "2d"}
    path = write_config(folder, UPSTREAMS, lanes={"otp": otp, "bulk": bulk}, rules=rules_ or [])
    return load(path, {}).config


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["mx1", "other"], None),
        (["pm", "resend"], None),
        (["pm", "pm-codes", "other"], None),
        (["pm-api", "mx1"], None),
        (["pm", "resend-api"], None),
        (["mx1"], "one upstream only (mx1): while that is down, codes wait, and expire after 10 min"),
        (["mx1", "mx2"], "mx1 and mx2 are all at mx.example.net, which is no second way: while that is down, codes"),
        (["pm", "pm-codes"], "pm and pm-codes are all at postmark, which is no second way"),
        (["pm-codes", "pm-by-host", "pm-api"], "pm-codes, pm-by-host and pm-api are all at postmark"),
        (["resend", "resend-api"], "resend and resend-api are all at resend"),
    ],
)
def test_a_lane_needs_a_second_upstream_that_is_somewhere_else(
    tmp_path: Path, names: list[str], said: str | None
) -> None:
    (found,) = lanes.check(config_with(tmp_path, names))
    assert (found.id, found.subject) == ("lane-failover", "otp")
    assert found.status == ("ok" if said is None else "warn")
    assert said is None or found.text.startswith(said)


def test_a_rule_that_leaves_an_express_lane_one_upstream_is_a_warning(tmp_path: Path) -> None:
    to_one = {"name": "eu", "match": {"sender": "*@eu.example.com"}, "lane": "otp", "upstreams": ["mx1"]}
    in_bulk = {"name": "news", "match": {"sender": "*@news.example.com"}, "lane": "bulk", "upstreams": ["mx1"]}
    config = config_with(tmp_path, ["mx1", "other"], [{**to_one, "expires": "5m"}, in_bulk])
    assert [(one.area, one.subject, one.status, one.text.rpartition(" after ")[2]) for one in lanes.check(config)] == [
        ("lane", "otp", "ok", "2 upstreams, not all at one host or provider: mx1 and other"),
        ("rule", "eu", "warn", "5 min"),
    ]


WIDE_AND_NARROW = [
    ({}, {"sender": "*@a.example"}, True),
    ({"sender": "*@a.example"}, {"sender": "*@a.example"}, True),
    ({"sender": ["*@a.example", "*@b.example"]}, {"sender": ["*@b.example", "*@a.example"]}, True),
    ({"sender": ["*@a.example", "*@b.example"]}, {"sender": "*@b.example"}, True),
    ({"sender": "*@a.example"}, {"sender": "*@a.example", "subject": "code*"}, True),
    ({"client": "10.0.0.0/8"}, {"client": "10.1.0.0/16"}, True),
    ({"client": "2001:db8::/32"}, {"client": "2001:db8:1::/48"}, True),
    ({"priority": 2}, {"priority": 4}, True),
    ({"content": "otp"}, {"content": "otp"}, True),
    ({"header": {"x-relay-lane": ["otp", "bulk"]}}, {"header": {"X-Relay-Lane": "otp", "X-App": "a"}}, True),
    ({"sender": "*@a.example"}, {}, False),
    ({"sender": "*@a.example"}, {"sender": ["*@a.example", "*@b.example"]}, False),
    ({"sender": "*@a.example", "subject": "code*"}, {"sender": "*@a.example"}, False),
    ({"sender": "*@a.example"}, {"recipient": "*@a.example"}, False),
    ({"client": "10.1.0.0/16"}, {"client": "10.0.0.0/8"}, False),
    ({"client": "10.0.0.0/8"}, {"client": "::/0"}, False),
    ({"priority": 4}, {"priority": 2}, False),
    ({"content": "otp"}, {"content": "other"}, False),
    ({"header": {"X-Relay-Lane": "otp"}}, {"header": {"X-Other": "otp"}}, False),
    ({"header": {"X-Relay-Lane": "otp", "X-App": "a"}}, {"header": {"X-Relay-Lane": "otp"}}, False),
    ({"header": {"X-Relay-Lane": ""}}, {"header": {"X-App": "a"}}, False),
]


@pytest.mark.parametrize(("wide", "narrow", "is_covered"), WIDE_AND_NARROW)
def test_a_match_covers_another_only_if_it_takes_all_that_the_other_would(
    wide: dict[str, Any], narrow: dict[str, Any], is_covered: bool
) -> None:
    assert rules.covers(Match.model_validate(wide), Match.model_validate(narrow)) is is_covered


def test_a_rule_behind_one_that_covers_it_is_a_warning_and_really_never_matches(tmp_path: Path) -> None:
    matches: list[dict[str, Any]] = [
        {"sender": ["*@auth.example.com", "*@otp.example.com"]},
        {"sender": "*@otp.example.com", "subject": "code*"},
        {"sender": "*@otp.example.org"},
    ]
    named = [{"name": f"r{n}", "match": match, "lane": "otp"} for n, match in enumerate(matches)]
    config = config_with(tmp_path, ["mx1", "other"], named)
    (found,) = rules.check(config.rules)
    assert (found.id, found.subject, found.status) == ("rule-shadowed", "r1", "warn")
    assert found.text == "never matches: rule r0 before it takes all that it would match"
    assert found.hint == "remove it, or put it before r0"
    facts = Facts("a@otp.example.com", (), ("u@example.net",), "127.0.0.1", "code 1", (), "127.0.0.1:2525")
    assert Router(config).route(facts).rule == "r0"
