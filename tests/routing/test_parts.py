"""Recipients of one message that take different routes: who goes with whom, and what it costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.config.load import load
from relay.mail.codes.examination import Examination
from relay.mail.message import parse
from relay.routing.facts import Facts
from relay.routing.router import Router
from tests.routing.test_router import facts

HEAD = """\
listen: [{address: 127.0.0.1:2525}, {address: 127.0.0.1:2526, lane: otp}]
upstreams: {fast: {host: 127.0.0.1, tls: none}, slow: {host: 127.0.0.1, tls: none}}
lanes: {otp: {upstreams: [fast, slow]}, vip: {upstreams: [slow]}, bulk: {upstreams: [slow]}}
default_lane: bulk
rules:
"""


def router(folder: Path, *rules: str) -> Router:
    """Rules r0, r1, ... of the given texts, each behind its name."""
    path = folder / "relay.yaml"
    path.write_text(HEAD + "".join(f"  - {{name: r{n}, {rule}}}\n" for n, rule in enumerate(rules)))
    return Router(load(path, {}, machine_name=lambda: "machine").config)


def shown(found: Router, given: Facts) -> list[tuple[str, str | None, tuple[int, ...]]]:
    return [(part.route.lane, part.route.rule, part.positions) for part in found.parts(given)]


A, B = 'match: {recipient: "*@a.test"}, lane: otp', 'match: {recipient: "*@b.test"}, lane: vip'
BULK = ("bulk", None, (3,))
ABAC = ("1@a.test", "2@b.test", "3@a.test", "4@c.test")


def test_each_recipient_goes_where_it_would_go_alone_and_parts_stand_in_the_order_of_their_first(
    tmp_path: Path,
) -> None:
    found = router(tmp_path, A, B)
    assert shown(found, facts(recipients=ABAC)) == [
        ("otp", "r0", (0, 2)),
        ("vip", "r1", (1,)),
        ("bulk", None, (3,)),
    ]
    assert shown(found, facts(recipients=ABAC[::-1])) == [
        ("bulk", None, (0,)),
        ("otp", "r0", (1, 3)),
        ("vip", "r1", (2,)),
    ]


def test_what_is_redirected_stays_whole_as_one_copy_goes_out(tmp_path: Path) -> None:
    path = tmp_path / "relay.yaml"
    path.write_text(f"redirect: staging@example.com\n{HEAD}  - {{name: r0, {A}}}\n")
    found = Router(load(path, {}, machine_name=lambda: "machine").config)
    assert shown(found, facts(recipients=ABAC)) == [("bulk", None, (0, 1, 2, 3))]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        # Two rules with one lane are two parts: limits and upstreams may differ.
        (
            (A, 'match: {recipient: "*@b.test"}, lane: otp'),
            [("otp", "r0", (0, 2)), ("otp", "r1", (1,)), ("bulk", None, (3,))],
        ),
        # A rule in between that isn't about recipients takes the rest.
        ((A, 'match: {sender: "*"}, lane: vip', B), [("otp", "r0", (0, 2)), ("vip", "r1", (1, 3))]),
        # The other keys of a rule hold for all recipients or for none.
        (
            ('match: {recipient: "*@a.test", subject: nothing}, lane: otp', B),
            [("bulk", None, (0, 2, 3)), ("vip", "r1", (1,))],
        ),
        ((B,), [("bulk", None, (0, 2, 3)), ("vip", "r0", (1,))]),
        (('match: {recipient: "*"}, lane: otp', A), [("otp", "r0", (0, 1, 2, 3))]),
        (('match: {sender: "*"}, lane: otp', A), [("otp", "r0", (0, 1, 2, 3))]),
    ],
)
def test_rules_part_recipients_as_far_as_they_are_about_them(
    tmp_path: Path, rules: tuple[str, ...], expected: list[tuple[str, str | None, tuple[int, ...]]]
) -> None:
    assert shown(router(tmp_path, *rules), facts(recipients=ABAC)) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"recipients": ABAC, "listener_lane": "otp"},
        {"recipients": ABAC, "named_lane": "vip"},
        {"recipients": ABAC[:1]},
        {"recipients": ()},
    ],
)
def test_a_pinned_or_named_lane_and_a_single_recipient_are_one_part(tmp_path: Path, given: dict[str, object]) -> None:
    found, asked = router(tmp_path, A, B), facts(**given)
    (part,) = found.parts(asked)
    assert (part.route, part.positions) == (found.route(asked), tuple(range(len(asked.recipients))))


def test_without_a_rule_about_recipients_there_is_one_part(tmp_path: Path) -> None:
    found, asked = router(tmp_path, 'match: {sender: "*"}, lane: otp'), facts(recipients=ABAC)
    assert shown(found, asked) == [("otp", "r0", (0, 1, 2, 3))]


def test_the_content_is_examined_only_for_recipients_that_are_left(tmp_path: Path) -> None:
    code = 'match: {recipient: "*@b.test", content: otp}, lane: otp'
    content = parse(b"Subject: Sign in\r\n\r\nYour code is 482913.\r\n")
    examination = Examination(content)
    found = router(tmp_path, A, code)
    assert shown(found, facts(recipients=("1@a.test", "2@c.test"), examination=examination))[0][1] == "r0"
    assert examination.made is None
    assert shown(found, facts(recipients=ABAC, examination=examination))[1] == ("otp", "r1", (1,))
    assert examination.made is not None


KEYS = st.sampled_from(
    [
        'match: {recipient: "*@a.test"}',
        'match: {recipient: ["*@b.test", "1@*"]}',
        'match: {recipient: "/^[12]@/"}',
        'match: {recipient: "*@c.test", sender: "*@example.org"}',
        'match: {recipient: "*", subject: nothing}',
        "match: {client: 10.0.0.0/8, priority: 4}",
        "match: {sender: nobody@example.com}",
    ]
)
RULES = st.lists(st.tuples(KEYS, st.sampled_from(["otp", "vip", "bulk"])), max_size=5)
ADDRESSES = st.lists(st.builds("{}@{}.test".format, st.integers(1, 3), st.sampled_from("abcd")), min_size=1, max_size=7)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(rules=RULES, addresses=ADDRESSES, priority=st.sampled_from([None, 4]))
@example(rules=[('match: {recipient: "*@a.test"}', "otp")], addresses=["1@a.test", "1@b.test"], priority=None)
def test_any_message_is_parted_as_its_recipients_would_go_alone(
    tmp_path: Path, rules: list[tuple[str, str]], addresses: list[str], priority: int | None
) -> None:
    found = router(tmp_path, *(f"{match}, lane: {lane}" for match, lane in rules)) if rules else None
    if found is None:
        return
    asked = facts(recipients=tuple(addresses), priority=priority)
    parts = found.parts(asked)
    assert sorted(position for part in parts for position in part.positions) == list(range(len(addresses)))
    assert [part.positions[0] for part in parts] == sorted(part.positions[0] for part in parts)
    assert len({part.route for part in parts}) == len(parts)
    for part in parts:
        assert list(part.positions) == sorted(part.positions)
        for position in part.positions:
            alone = facts(recipients=(addresses[position],), priority=priority)
            if any("recipient" in match for match, _ in rules):
                assert found.route(alone) == part.route
        # A part is a message by that rule: `recipient` holds for every recipient of it.
        of_part = facts(recipients=tuple(addresses[position] for position in part.positions), priority=priority)
        assert found.route(of_part) == part.route
        assert found.explain(of_part).route == part.route
