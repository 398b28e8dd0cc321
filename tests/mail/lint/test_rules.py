"""Every rule has a case, and lint raises nothing else and shows no code, whatever the message."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.lint import lint
from relay.mail.lint.rules import LEVELS, RULES
from relay.mail.message import Unacceptable
from tests.mail.lint import test_framing, test_header, test_layout, test_wording
from tests.mail.lint.material import CLEAN, CODE, NOW, changed, rules, with_subject
from tests.mail.material import any_content

MODULES = (test_framing, test_header, test_wording, test_layout)
TABLES = [module.BAD for module in MODULES]
MISTAKES = {name: case for table in TABLES for name, case in table.items()}
FINE = {name: content for module in MODULES for name, content in module.FINE.items()}
CASES = {name: content for name, (_, content) in MISTAKES.items()}
PIECES = st.sampled_from([
    b"From: ", b"a@b.c", b"To: ", b"Date: ", b"Message-ID: ", b"Subject: ", b"\r\n", b"\r\n\r\n", b"Code: 482913",
    b"--b", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", b"Content-Type: text/html\r\n\r\n",
    b"<a href=", b"<img ", b"https://",
    b"example.com", b"[", b"]", b">", b"<!", b"<![", b"</a>", b"&#x110000;", b'style="', b"\xff", b"\0",
    b"1@", b"Sat, 01 Mar 99999 25:00:00 +9999", b"=?utf-8?q?",
])  # fmt: skip
"""of which headers, HTML and links are made"""


def test_every_rule_has_a_case() -> None:
    covered = {rule for table in TABLES for rule, _ in table.values()}
    assert covered.union(*(expected for *_, expected in test_header.SIGNED)) == set(RULES)
    assert sum(map(len, TABLES)) == len(CASES)
    assert sum(len(module.FINE) for module in MODULES) == len(FINE)


@pytest.mark.parametrize(("rule", "content"), MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_has_its_one_finding(rule: str, content: bytes) -> None:
    assert rules(content) == {rule}


@pytest.mark.parametrize("content", FINE.values(), ids=FINE.keys())
def test_what_is_near_a_mistake_has_no_finding(content: bytes) -> None:
    assert rules(content) == set()


@pytest.mark.parametrize("rule", RULES)
def test_a_text_ends_as_a_sentence_does_and_a_name_is_plain(rule: str) -> None:
    assert RULES[rule].text.endswith((".", "”"))
    assert re.fullmatch("[a-z0-9-]+", rule)


@pytest.mark.parametrize("content", CASES.values(), ids=CASES.keys())
def test_a_finding_is_as_its_rule_says_and_shows_no_code(content: bytes) -> None:
    coded = content.replace(b"/help", b"/482913").replace(b"Subject: ", b"Subject: 482913 ")
    for found in (*lint(content, now=NOW), *lint(coded, now=NOW)):
        assert found.level == RULES[found.rule].level
        assert found.text.endswith((".", "”"))
        assert "{" not in found.text
        assert CODE not in found.text


def test_grave_findings_come_first_then_the_order_of_the_rules_counts() -> None:
    content = b"\0" + with_subject("NOTIFICATION!!").replace(b"MIME", b"no colon\r\nMIME").replace(b"p>", b"form>")
    names = [found.rule for found in lint(content, now=NOW)]
    assert names == sorted(names, key=lambda name: (LEVELS.index(RULES[name].level), list(RULES).index(name)))
    assert len(names) > 3


@given(st.one_of(any_content, st.binary(max_size=200), st.lists(PIECES, max_size=25).map(b"".join)))
def test_nothing_breaks_lint(content: bytes) -> None:
    for signed in (None, ("example.com",)):
        lint(content, now=NOW, signed=signed)


@given(st.integers(0, len(CLEAN)), st.integers(0, 40), st.lists(PIECES, max_size=4).map(b"".join))
def test_no_change_of_a_clean_mail_breaks_lint(at: int, removed: int, added: bytes) -> None:
    lint(CLEAN[:at] + added + CLEAN[at + removed :], now=NOW)


@pytest.mark.parametrize("now", [0.0, -1.0, 1e12])
def test_any_time_can_be_compared_with(now: float) -> None:
    assert {found.rule for found in lint(CLEAN, now=now)} <= {"date-off"}


def test_an_endless_header_section_is_refused() -> None:
    with pytest.raises(Unacceptable):
        lint(b"a:\r\n" * 100_000, now=NOW)


def test_a_code_that_is_the_message_id_is_not_shown() -> None:
    [found] = lint(changed("<1@app.example.org>", f"<{CODE}>"), now=NOW)
    assert CODE not in found.text
