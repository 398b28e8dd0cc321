"""Completion scripts in the shells that read them, and the man page."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.__main__ import main, parser
from relay.cli.completion import SCRIPTS
from tests.cli.terminal import Terminal
from tools.generate.commands import program

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "relay/cli/completions"
MAN = ROOT / "relay/cli/man/otp-relay.1"
BASH, ZSH, FISH = (FOLDER / SCRIPTS[shell] for shell in ("bash", "zsh", "fish"))
WORDS = [
    ("sche", {"schema"}),
    ("sup", {"suppress"}),
    ("suppress rem", {"remove"}),
    ("init --pre", {"--preset"}),
    ("init --preset postmark --sec", {"--second", "--second-username", "--second-password-file"}),
    ("init --preset mailgu", {"mailgun", "mailgun-eu"}),
    ("init --run comp", {"compose"}),
    ("completion f", {"fish"}),
    ("queue ret", {"retry"}),
    ("presets smtp", {"smtp2go"}),
    ("store key --o", {"--out"}),
]


def needs(program_name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program_name) is None, reason=f"{program_name} is not installed")


def run(*words: str, folder: Path) -> str:
    said = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert said.stderr == ""
    return said.stdout


def in_bash(line: str, folder: Path) -> set[str]:
    """What bash offers for the last word of `otp-relay LINE`."""
    script = (
        f"source {BASH}; complete -p otp-relay >/dev/null || exit 1; "
        'COMP_WORDS=(otp-relay "$@"); COMP_CWORD=$#; _otp_relay; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return set(run("bash", "--norc", "-c", script, "bash", *line.split(" "), folder=folder).split())


def in_fish(line: str, folder: Path) -> set[str]:
    script = f'source {FISH}; complete -C "otp-relay {line}"'
    found = run("fish", "--no-config", "-c", script, folder=folder)
    return {one.partition("\t")[0] for one in found.splitlines()}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_command_prints_the_script_of_a_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == (FOLDER / SCRIPTS[shell]).read_text()


@pytest.mark.real
@needs("bash")
@pytest.mark.parametrize(("line", "offered"), WORDS)
def test_bash_completes(line: str, offered: set[str], tmp_path: Path) -> None:
    assert in_bash(line, tmp_path) == offered


@pytest.mark.real
@needs("bash")
def test_bash_offers_files_where_one_is_expected(tmp_path: Path) -> None:
    (tmp_path / "mail.eml").touch()
    assert in_bash("lint m", tmp_path) == {"mail.eml"}
    assert in_bash("run -c m", tmp_path) == {"mail.eml"}
    assert in_bash("run --config = m", tmp_path) == {"mail.eml"}
    assert in_bash("send-test m", tmp_path) == set()


@pytest.mark.real
@needs("fish")
@pytest.mark.parametrize(("line", "offered"), WORDS)
def test_fish_completes(line: str, offered: set[str], tmp_path: Path) -> None:
    assert in_fish(line, tmp_path) == offered


@pytest.mark.real
@needs("fish")
def test_fish_offers_files_where_one_is_expected(tmp_path: Path) -> None:
    (tmp_path / "mail.eml").touch()
    assert in_fish("lint m", tmp_path) == {"mail.eml"}
    assert in_fish("run -c m", tmp_path) == {"mail.eml"}
    assert in_fish("send-test m", tmp_path) == set()


@pytest.mark.real
@needs("zsh")
def test_zsh_completes(tmp_path: Path) -> None:
    (tmp_path / "mail.eml").touch()
    with Terminal("-f", "-i", folder=tmp_path, program=["zsh"]) as zsh:
        zsh.type(f"PS1='> '; fpath=({ZSH.parent} $fpath); autoload -Uz compinit; compinit -u -D\n")
        zsh.type("print rea''dy\n")
        zsh.wait_for("ready")
        # A word with one completion gets it, and a blank behind it. `#` keeps the shell from running it.
        for typed, whole in (
            ("sche", "schema"),
            ("suppress rem", "suppress remove"),
            ("init --pre", "init --preset"),
            ("init --run comp", "init --run compose"),
            ("completion f", "completion fish"),
            ("lint m", "lint mail.eml"),
        ):
            zsh.type(f"otp-relay {typed}\t")
            zsh.wait_for(f"otp-relay {whole}")
            zsh.type("\x15")


def leaves(given: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Any]:
    """Each command with its parser."""
    below = [one for one in given._actions if isinstance(one, argparse._SubParsersAction)]
    for one in below:
        for name, inner in one.choices.items():
            yield from leaves(inner, (*path, name))
    if not below:
        yield pytest.param(given, id=" ".join(path))


@pytest.mark.parametrize("command", [one for one in leaves(parser()) if one.id != "sendmail"])
def test_every_command_takes_a_configuration(command: argparse.ArgumentParser) -> None:
    """sendmail reads its own arguments: -C and -c are among them."""
    (option,) = (one for one in command._actions if "-c" in one.option_strings)
    assert option.option_strings == ["-c", "--config"]
    assert option.metavar == "FILE"


@pytest.mark.parametrize(
    "words",
    [
        ("check",),
        ("log",),
        ("log", "01A"),
        ("log", "erase", "a@example.net"),
        ("queue",),
        ("queue", "retry", "--all"),
        ("report",),
        ("events",),
        ("receivers",),
        ("suppress", "list"),
        ("store", "check"),
        ("doctor",),
        ("user", "add", "app"),
        ("oauth", "login", "esp"),
        ("ready",),
        ("send-test", "a@example.net"),
        ("explain", "mail.eml"),
    ],
    ids=" ".join,
)
def test_without_a_configuration_the_error_says_how_to_name_one(
    words: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OTP_RELAY_CONFIG", raising=False)
    try:
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    assert code == (1 if words[0] in ("ready",) else 2)
    assert "config/relay.yaml" in said.out + said.err
    assert "-c FILE" in said.out + said.err
    assert "$OTP_RELAY_CONFIG" in said.out + said.err


def test_run_says_so_too(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "relay", "run"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "OTP_RELAY_CONFIG"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert said.returncode == 2
    assert said.stderr == "config/relay.yaml: no such file; name it with -c FILE or $OTP_RELAY_CONFIG\n"


@pytest.mark.real
@needs("mandoc")
def test_mandoc_finds_nothing_in_the_man_page(tmp_path: Path) -> None:
    said = subprocess.run(["mandoc", "-T", "lint", str(MAN)], capture_output=True, text=True, timeout=30, check=False)
    # It has no date, so that it is the same wherever it is made.
    assert [line for line in said.stdout.splitlines() if "missing date" not in line] == []


@pytest.mark.real
@needs("groff")
def test_groff_renders_the_man_page_without_a_warning(tmp_path: Path) -> None:
    shown = run("groff", "-man", "-ww", "-Tascii", str(MAN), folder=tmp_path)
    text = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", shown)
    assert "otp-relay - a local SMTP relay that lets one-time codes out first" in text
    for command in program().all():
        if command.path and not command.subcommands:
            assert re.search(rf"^ +{command.name}\b", text, re.MULTILINE)


def test_the_wheel_puts_each_file_where_its_reader_looks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert (
        project["tool"]["setuptools"]["data-files"].items()
        >= {
            "share/man/man1": [str(MAN.relative_to(ROOT))],
            "share/bash-completion/completions": [str(BASH.relative_to(ROOT))],
            "share/zsh/site-functions": [str(ZSH.relative_to(ROOT))],
            "share/fish/vendor_completions.d": [str(FISH.relative_to(ROOT))],
        }.items()
    )
