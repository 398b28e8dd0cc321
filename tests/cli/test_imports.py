"""What a command doesn't need, it doesn't load: every library costs each start its time and its memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relay.__main__ import GROUPS, parser
from relay.store.sqlite import schema

LIBRARIES = {
    "aiohttp", "aiosmtpd", "aiosmtplib", "cryptography", "dkim", "dns", "prometheus_client", "pydantic",
    "re2", "uvloop", "yaml",
}  # fmt: skip
COSTLY = LIBRARIES | {"asyncio", "dataclasses", "email", "http", "logging", "smtplib", "sqlite3", "ssl"}


def loaded_by(program: str, environment: dict[str, str] | None = None) -> set[str]:
    """The modules that a program has loaded, beyond those that the interpreter comes up with.

    An editable install may put a finder of its own into every start, and that loads what it likes.
    """
    return modules_after(program, environment) - modules_after("pass", environment)


def modules_after(program: str, environment: dict[str, str] | None) -> set[str]:
    said = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sorted(sys.modules), file=sys.stderr)"],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, **(environment or {})},
        input=b"Subject: hi\n\nhello\n",
    )
    return set(said.stderr.decode().splitlines()[-1].split())


def run(*words: str) -> str:
    return f"from relay.__main__ import main\ntry:\n    main({list(words)})\nexcept SystemExit:\n    pass"


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("run", "--help"), ("queue", "--help")])
def test_help_loads_no_library(words: tuple[str, ...]) -> None:
    loaded = loaded_by(run(*words))
    assert "argparse" in loaded
    assert not loaded & COSTLY


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_registers_its_own_commands_only(group: str) -> None:
    usage = parser([group]).format_help()
    listed = re.findall(r"^    ([\w-]+)\b", usage.partition("\ncommands:\n")[2], re.MULTILINE)
    assert tuple(listed) == GROUPS[group]


def test_a_command_loads_no_other_command() -> None:
    loaded = loaded_by(run("queue", "--help"))
    assert {name for name in loaded if name.startswith("relay.cli.")} == {
        *("relay.cli.common", "relay.cli.mail", "relay.cli.source")
    }


def test_sendmail_loads_next_to_nothing() -> None:
    nobody = {"OTP_RELAY_SUBMIT": "127.0.0.1:1"}
    loaded = loaded_by(run("sendmail", "-i", "user@example.net"), nobody)
    assert "relay.sendmail.submit" in loaded
    assert not loaded & (COSTLY | {"argparse", "dataclasses", "json", "pathlib", "typing"})


def test_sendmail_with_a_configuration_loads_only_the_yaml_parser_in_addition(tmp_path: Path) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text("listen: [{address: '127.0.0.1:1'}]\n")
    loaded = loaded_by(run("sendmail", "-C", str(config), "user@example.net"))
    assert loaded & COSTLY <= {"yaml"}


@pytest.fixture(scope="module")
def config_with_a_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("relay")
    schema.prepare(folder / "relay.db")
    config = folder / "relay.yaml"
    config.write_text("store: relay.db\nlanes: {bulk: {upstreams: [sink]}}\n")
    return config


@pytest.mark.parametrize(
    "words",
    [("log",), ("log", "--to", "a@example.net", "--since", "1h"), ("log", "01A"), ("queue",), ("report",)],
    ids=" ".join,
)
def test_commands_that_only_read_load_sqlite_and_the_yaml_parser(
    words: tuple[str, ...], config_with_a_store: Path
) -> None:
    loaded = loaded_by(run(*words, "-c", str(config_with_a_store)))
    assert {"relay.store.merge", "sqlite3", "yaml"} <= loaded
    assert loaded & COSTLY == {"sqlite3", "yaml"}


def test_the_relay_does_not_load_the_libraries_of_single_commands() -> None:
    loaded = loaded_by("import relay.config.load, relay.service.app")
    assert loaded & LIBRARIES >= {"aiosmtpd", "aiosmtplib", "pydantic"}
    assert "aiohttp" not in loaded  # it is loaded after `ready`
    assert not loaded & {"dkim", "dns", "relay.demo", "relay.doctor"}


def test_a_worker_loads_neither_the_smtp_nor_the_http_service() -> None:
    loaded = loaded_by("import relay.workers.process")
    assert loaded & LIBRARIES >= {"aiosmtplib"}
    assert not loaded & {"aiohttp", "aiosmtpd", "dkim", "dns", "re2", "yaml"}
    services = ("relay.intake.server", "relay.intake.session", "relay.intake.accept", "relay.web", "relay.routing")
    assert not {name for name in loaded if name.startswith(services)}
