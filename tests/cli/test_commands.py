"""The commands as programs: exit codes, one line for what went wrong, and what `--json` prints."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from time import time

import pytest

from tests.cli.test_mail_commands import fill
from tests.support.relay import Said, command, write_config

COMMANDS = (
    "run", "check", "explain", "log", "queue", "report", "keygen", "doctor", "detect", "lint", "demo", "sendmail",
)  # fmt: skip
NOWHERE: dict[str, object] = {"host": "127.0.0.1", "port": 9, "tls": "none"}

GOOD = """\
From: Shop <no-reply@auth.example.com>
To: user@example.net
Subject: Your verification code
Date: Sat, 01 Mar 2025 09:05:07 +0000
Message-ID: <a@auth.example.com>
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

482913 is your code.
"""


def run(*arguments: str | Path, given: bytes = b"", environment: dict[str, str] | None = None) -> Said:
    return asyncio.run(command(*arguments, given=given, environment=environment))


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    path = tmp_path / "mail.eml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_of_the_contract_has_help(verb: str) -> None:
    result = run(verb, "--help")
    assert result.code == 0
    assert result.out.startswith("usage: otp-relay")
    assert result.err == ""


@pytest.mark.fresh
def test_the_version_is_that_of_the_package() -> None:
    from relay import __version__

    assert run("--version").out == f"otp-relay {__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("no-such-command",), ("run", "--no-such-option"), ("log", "a", "b")])
def test_an_unknown_command_exits_2_with_the_usage(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.err.startswith("usage: otp-relay")


@pytest.mark.parametrize(
    "arguments",
    ["hold -c {0} 01B 01C", "hold 01B -c {0} 01C", "-c {0} hold 01B 01C", "hold 01B 01C -c {0}"],
)
def test_ids_may_stand_before_and_after_options(tmp_path: Path, arguments: str) -> None:
    config = write_config(tmp_path, {"one": NOWHERE}, workers=0)
    asyncio.run(fill(tmp_path / "relay.db", time()))
    result = run("queue", *arguments.format(config).split())
    assert (result.code, result.out, result.err) == (0, "01B\n01C\n", "")


@pytest.mark.parametrize("arguments", ["queue -c {0} hold 01B --nothing", "log -c {0} 01A 01B", "check -c {0} more"])
def test_an_unknown_argument_is_a_usage_error(tmp_path: Path, arguments: str) -> None:
    result = run(*arguments.format(tmp_path / "relay.yaml").split())
    assert result.code == 2
    assert "unrecognized arguments: " in result.err


@pytest.mark.fresh
@pytest.mark.parametrize("arguments", [("sendmail", "--help"), ("keygen", "example.com", "s1", "--ed25519", "--out")])
def test_a_closed_pipe_on_stdout_is_no_failure(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    words = [*arguments, str(tmp_path)] if arguments[-1] == "--out" else arguments
    ended = subprocess.run([sys.executable, "-m", "relay", *words], stdout=write, stderr=subprocess.PIPE, timeout=30)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments", ["--help", "check", "explain mail.eml", "log", "log --json", "queue", "queue hold --all", "report",
    "store check", "doctor --dns 127.0.0.1:9", "lint mail.eml", "keygen example.com s1", "demo"],
)  # fmt: skip
def test_output_that_can_not_be_written_is_one_line_and_exit_74(
    tmp_path: Path, mail: Path, arguments: str, unbuffered: str
) -> None:
    config = write_config(tmp_path, {"one": NOWHERE}, workers=0)
    mail.write_text("Subject: 482913\n\nhttp://203.0.113.1/login\n")
    asyncio.run(fill(tmp_path / "relay.db", time()))
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "relay", *arguments.split()], stdout=full, stderr=subprocess.PIPE, timeout=60,
            cwd=tmp_path, env={**os.environ, "OTP_RELAY_CONFIG": str(config), "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert ended.stderr == b"otp-relay: standard output: No space left on device\n"
    assert ended.returncode == 74


@pytest.mark.parametrize("arguments", ["log", "log --json", "queue", "report", "check", "--help"])
def test_a_pipe_closed_during_the_output_is_no_failure(tmp_path: Path, arguments: str) -> None:
    config = write_config(tmp_path, {"one": NOWHERE}, workers=0)
    asyncio.run(fill(tmp_path / "relay.db", time()))
    shell = f"{sys.executable} -m relay {arguments} | :; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "OTP_RELAY_CONFIG": str(config)}
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, timeout=60, env=environment)
    assert (ended.stdout, ended.stderr) == (b"0\n", b"")


def test_a_closed_stdout_is_no_traceback(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"one": NOWHERE}, workers=0)
    shell = f"{sys.executable} -m relay check -c {config} >&-"
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_explain_shows_the_route_of_a_message_and_sends_nothing(tmp_path: Path, mail: Path) -> None:
    rules = [
        {"name": "staff", "match": {"recipient": "*@staff.example.com", "subject": "*verification*"}, "lane": "otp"},
        {"name": "net", "match": {"client": "10.0.0.0/8"}, "lane": "otp", "upstreams": ["two"]},
    ]
    upstreams = {"one": NOWHERE, "two": {**NOWHERE, "port": 10}}
    config = write_config(tmp_path, upstreams, rules=rules)
    result = run("explain", mail, "-c", config, "--json")
    assert result.code == 0
    document = result.document
    assert (document["lane"], document["rule"], document["upstreams"], document["dkim"]) == (
        "bulk",
        None,
        ["one", "two"],
        None,
    )
    assert [one["rule"] for one in document["earlier"]] == ["staff", "net"]
    assert all(one["why_not"] for one in document["earlier"])
    assert document["limits"]["message_size"] == 30_000_000
    document = run("explain", mail, "-c", config, "--json", "--client", "10.1.2.3").document
    assert (document["lane"], document["rule"], document["upstreams"]) == ("otp", "net", ["two"])
    assert [one["rule"] for one in document["earlier"]] == ["staff"]
    envelope = ("--from", "x@example.com", "--to", "a@staff.example.com", "--to", "b@staff.example.com")
    text = run("explain", mail, "-c", config, *envelope)
    assert (text.code, text.err) == (0, "")
    assert "staff" in text.out
    text = run("explain", mail, "-c", config, "--lane", "otp")
    assert text.out.startswith("lane       otp (named by the request)\nupstreams")
    assert run("explain", mail, "-c", config, "--lane", "opt").code == 2
    assert not (tmp_path / "relay.db").exists()


def test_a_rule_and_explain_can_name_the_http_listener(tmp_path: Path, mail: Path) -> None:
    rules = [{"name": "by-http", "match": {"listener": "127.0.0.1:8025"}, "lane": "otp"}]
    config = write_config(tmp_path, {"one": NOWHERE}, rules=rules, http={"address": "127.0.0.1:8025"})
    document = run("explain", mail, "-c", config, "--json", "--listener", "127.0.0.1:8025").document
    assert (document["rule"], document["listener"]) == ("by-http", "127.0.0.1:8025")
    rules[0]["match"] = {"listener": "unix:/run/send.sock"}
    config = write_config(
        tmp_path,
        {"one": NOWHERE},
        rules=rules,
        http={"address": "127.0.0.1:8025", "send_address": "unix:/run/send.sock"},
    )
    document = run("explain", mail, "-c", config, "--json", "--lane", "otp").document
    assert (document["rule"], document["listener"]) == ("api", "unix:/run/send.sock")


@pytest.mark.parametrize("verb", ["explain", "lint"])
def test_a_missing_message_file_is_one_line_and_exit_2(tmp_path: Path, verb: str) -> None:
    config = ("-c", write_config(tmp_path, {"one": NOWHERE})) if verb == "explain" else ()
    result = run(verb, tmp_path / "none.eml", *config)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert "none.eml" in result.err


def test_lint_exits_0_for_a_good_message_and_1_for_a_bad_one(tmp_path: Path, mail: Path) -> None:
    result = run("lint", mail, "--json")
    assert (result.code, {one["level"] for one in result.objects}) == (0, {"hint"})
    mail.write_text("Subject: 482913\n\nhttp://203.0.113.1/login\n")
    result = run("lint", mail, "--json")
    assert result.code == 1
    assert all({"rule", "text"} <= set(one) for one in result.objects)
    assert "482913" not in result.out + run("lint", mail).out


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_keygen_writes_a_key_for_its_owner_and_prints_the_record_to_publish(tmp_path: Path, kind: str) -> None:
    options = ["--ed25519"] if kind == "ed25519" else []
    result = run("keygen", "auth.example.com", "s1", "--out", tmp_path / "keys", *options)
    assert (result.code, result.err) == (0, "")
    (key,) = (tmp_path / "keys").iterdir()
    assert key.stat().st_mode & 0o777 == 0o600
    assert str(key) in result.out
    assert "PRIVATE KEY" not in result.out
    record = "".join(re.findall(r'"([^"]*)"', result.out))
    assert record.startswith(f"v=DKIM1; k={kind}; p=")
    assert "s1._domainkey.auth.example.com" in result.out
    before = key.read_bytes()
    again = run("keygen", "auth.example.com", "s1", "--out", tmp_path / "keys", *options)
    assert again.code == 2
    assert len(again.err.splitlines()) == 1
    assert key.read_bytes() == before
    config = write_config(
        tmp_path,
        {"one": NOWHERE},
        dkim=[{"domain": "auth.example.com", "keys": [{"selector": "s1", "key_file": str(key)}]}],
    )
    assert run("check", "-c", config).code == 0


@pytest.mark.parametrize(("domain", "selector"), [("not a domain", "s1"), ("example.com", "s 1"), ("-", "../x")])
def test_keygen_refuses_names_that_can_not_be_published(tmp_path: Path, domain: str, selector: str) -> None:
    result = run("keygen", "--out", tmp_path / "keys", "--", domain, selector)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "keys").exists()


def test_check_exits_0_with_notes_or_2_with_the_errors(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"one": NOWHERE})
    result = run("check", environment={"OTP_RELAY_CONFIG": str(config)})
    assert (result.code, result.err) == (0, "")
    assert str(config) in result.out
    config.write_text(config.read_text() + "no_such_key: 1\n")
    result = run("check", "-c", config)
    assert result.code == 2
    assert result.err.startswith(f"{config}:")


@pytest.mark.parametrize("verb", ["check", "log", "run", "queue"])
def test_a_missing_configuration_is_reported_with_how_to_name_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OTP_RELAY_CONFIG", raising=False)
    hint = "config/relay.yaml: no such file; name it with -c FILE or $OTP_RELAY_CONFIG\n"
    assert (run(verb).code, run(verb).err) == (2, hint)
    result = run(verb, environment={"OTP_RELAY_CONFIG": "none.yaml"})
    assert (result.code, result.err) == (2, "none.yaml: no such file (named by $OTP_RELAY_CONFIG)\n")


def test_check_notes_a_listener_that_has_no_user_yet(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("# nobody yet\n")
    users.chmod(0o600)
    listen = [{"address": "127.0.0.1:0"}, {"address": "127.0.0.1:0", "auth": "required", "users_file": "users"}]
    config = write_config(tmp_path, {"one": NOWHERE}, listen=listen)
    result = run("check", "-c", config)
    assert (result.code, result.err) == (0, "")
    place = rf"note: {config}:[0-9]+:[0-9]+: listen\[1\]\.users_file: "
    assert re.search(f"^{place}no user yet, so nobody can log in; otp-relay user add NAME$", result.out, re.MULTILINE)
    assert run("user", "add", "app", "-c", config, given=b"x\n").code == 0
    assert "note: " not in run("check", "-c", config).out


def test_doctor_exits_2_if_an_upstream_is_down(tmp_path: Path) -> None:
    result = run("doctor", "-c", write_config(tmp_path, {"one": NOWHERE}), "--json")
    assert result.code == 2
    document = result.document
    assert document["ok"] is False
    assert any(one["status"] == "fail" and one["subject"] == "one" for one in document["findings"])


def test_json_output_is_strict_json(tmp_path: Path, mail: Path) -> None:
    """No NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    config = write_config(tmp_path, {"one": NOWHERE})
    result = run("explain", mail, "-c", config, "--json")
    assert json.loads(result.out, parse_constant=refuse)
    assert len(result.out.splitlines()) == 1
