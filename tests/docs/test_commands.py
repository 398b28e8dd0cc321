"""Every command of the relay in the documents exists and takes the options that it is shown with."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.__main__ import main
from tests.docs.blocks import DOCUMENTS, ROOT, Block, all_blocks
from tests.docs.commands import commands, invocations, invocations_in, mentioned, mistake, options

MAIL = "From: no-reply@auth.example.com\nTo: anna@example.net\nSubject: Sign in\n\nYour code is 123456\n"
SHELL = [one for one in all_blocks("sh", "console", "bash") if list(invocations(one))]


@pytest.mark.parametrize("block", SHELL, ids=lambda one: one.place)
def test_the_commands_of_a_block_are_understood(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in invocations(block):
        assert mistake(arguments) is None, capsys.readouterr().err


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: str(one.relative_to(ROOT)))
def test_the_commands_in_the_text_exist(document: Path) -> None:
    for command, named in mentioned(document.read_text()):
        assert command in commands(), command
        if command != "sendmail":
            assert named <= options(command), f"otp-relay {command}: {sorted(named - options(command))}"


def runnable() -> list[list[str]]:
    """The commands in the blocks that need no relay, network or file but a mail and a configuration; each once."""
    alone = {"presets", "keygen", "check", "explain", "detect", "lint", "schema"}
    found = {}
    for block in SHELL:
        for arguments in invocations(block):
            paths = [one for one in arguments if one.endswith((".mbox", ".d")) or one.startswith("/srv/")]
            if arguments[0] in alone and block.run is None and not paths:
                found[" ".join(arguments)] = arguments
    return list(found.values())


@pytest.mark.parametrize("arguments", runnable(), ids=" ".join)
def test_a_command_that_needs_no_relay_runs(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTP_RELAY_CONFIG", str(ROOT / "config/relay.yaml"))
    Path("mail.eml").write_text(MAIL)
    if "-c" in arguments:
        at = arguments.index("-c")
        arguments = [*arguments[: at + 1], str(ROOT / "config/relay.yaml"), *arguments[at + 2 :]]
    # Lint finds something in so short a mail.
    assert main(arguments) in ((0, 1) if arguments[0] == "lint" else (0,))
    if arguments[0] == "keygen":
        assert list(tmp_path.rglob("*.pem"))


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
