"""Every command of the relay in the documents exists and takes the options that it is shown with."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.__main__ import main
from tests.docs.blocks import DOCUMENTS, ROOT, Block, all_blocks
from tests.docs.commands import commands, invocations, invocations_in, mentioned, mistake, options

NOT_YET = {"init", "send-test", "ready", "schema", "completion"} - set(commands())
"""Commands that the documents show and that don't exist yet."""

SHELL = [one for one in all_blocks("sh", "console", "bash") if list(invocations(one))]


@pytest.mark.parametrize("block", SHELL, ids=lambda one: one.place)
def test_the_commands_of_a_block_are_understood(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in invocations(block):
        if arguments[0] in NOT_YET:
            continue
        assert mistake(arguments) is None, capsys.readouterr().err


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: str(one.relative_to(ROOT)))
def test_the_commands_in_the_text_exist(document: Path) -> None:
    for command, named in mentioned(document.read_text()):
        if command in NOT_YET:
            continue
        assert command in commands(), command
        if command != "sendmail":
            assert named <= options(command), f"otp-relay {command}: {sorted(named - options(command))}"


def presets() -> list[list[str]]:
    shown = [arguments for block in SHELL for arguments in invocations(block) if arguments[:1] == ["presets"]]
    return [["presets"], *[one for one in shown if len(one) > 1]]


@pytest.mark.parametrize("arguments", presets(), ids=" ".join)
def test_a_preset_that_is_named_exists(arguments: list[str]) -> None:
    assert main(arguments) == 0


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("sudo .venv/bin/otp-relay log --since 1h | head  # the last hour", [["log", "--since", "1h"]]),
        ("OTP_RELAY_CONFIG=a otp-relay check && otp-relay queue", [["check"], ["queue"]]),
        ("systemctl restart otp-relay", []),
        ("python3 -m venv .venv && .venv/bin/otp-relay demo", [["demo"]]),
    ],
)
def test_a_command_is_found_in_a_line_of_shell(line: str, found: list[list[str]]) -> None:
    assert list(invocations_in(line)) == found


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lgo"], "no command"),
        (["log", "--sincce", "1h"], "unrecognized"),
        (["queue", "retry", "--everything"], "unrecognized"),
        (["keygen"], "not understood"),
    ],
)
def test_a_wrong_command_is_noticed(arguments: list[str], says: str) -> None:
    assert says in (mistake(arguments) or "")
