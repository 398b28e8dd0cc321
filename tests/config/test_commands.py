"""The commands `check` and `explain`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay.__main__ import main
from tests.config.conftest import ENVIRON
from tests.config.test_bad_configs import FILES

ROOT = Path(__file__).parent.parent.parent
GOOD = ROOT / "tests" / "configs" / "good"

MESSAGE = b"""\
From: "App" <no-reply@auth.example.com>\r
To: a@example.net, B <b@example.net>\r
Subject: Your verification code: 482913\r
\r
482913\r
"""

WARM = "2 to 10 warm sessions (warm: auto, 1 and 1 ahead; more as bursts need them, up to sessions.max)"


@pytest.fixture
def contract(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = folder / "contract.yaml"
    path.write_bytes((GOOD / "contract.yaml").read_bytes())
    monkeypatch.setenv("POSTMARK_TOKEN", "hunter2")
    monkeypatch.setenv("RELAY_HTTP_TOKEN", "hunter2")
    return path


@pytest.fixture
def message(tmp_path: Path) -> Path:
    path = tmp_path / "message.eml"
    path.write_bytes(MESSAGE)
    return path


def exit_code(*args: object) -> int:
    try:
        return main([str(arg) for arg in args])
    except SystemExit as left:
        return int(left.code or 0)


@pytest.mark.fresh
def test_check_of_a_fresh_clone_passes() -> None:
    environ = {key: value for key, value in os.environ.items() if key != "OTP_RELAY_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-m", "relay", "check"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("config/relay.yaml: ok (1 listener, ")


def test_the_environment_names_the_configuration(
    contract: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTP_RELAY_CONFIG", str(contract))
    assert exit_code("check") == 0
    assert str(contract) in capsys.readouterr().out


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_check_refuses_every_mistake_without_a_traceback_or_a_secret(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    path = folder / "bad.yaml"
    path.write_bytes(file.read_bytes())
    assert exit_code("check", "-c", path) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{path}:")
    assert "Traceback" not in said.err
    assert "hunter2" not in said.err


def test_check_reads_a_users_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "relay.yaml"
    path.write_text(
        f"listen: [{{address: '127.0.0.1:2525', auth: required, users_file: {folder}/keys/users}}]\n"
        "upstreams: {mx: {host: 127.0.0.1, tls: none}}\nlanes: {otp: {upstreams: mx}}\n"
    )
    assert exit_code("check", "-c", path) == 0
    (folder / "keys" / "users").write_text("app:hunter2\n")
    assert exit_code("check", "-c", path) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{folder}/keys/users:1: expected name:")
    assert "hunter2" not in said


def test_check_of_no_file_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("check", "-c", tmp_path / "nothing.yaml") == 2
    assert capsys.readouterr().err == f"{tmp_path}/nothing.yaml: no such file\n"


def test_explain_shows_the_way_of_a_message(contract: Path, message: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("explain", "-c", contract, message) == 0
    assert capsys.readouterr().out.splitlines() == [
        "lane       otp (rule auth-sender)",
        "not        explicit: header: there is no X-Relay-Lane, the rule wants otp",
        "upstreams  postmark, ses",
        f"warm       postmark: {WARM}",
        f"warm       ses: {WARM}",
        "from       no-reply@auth.example.com",
        "to         a@example.net, b@example.net",
        "signed     auth.example.com: s1, e1",
        "expires    10m after the final dot",
        "limits     5 in 1h a recipient, 20 in 1h a client, again after 30s, beyond: reject",
        "counted    per_client, 0 of 20 in 1h, free now",
        "counted    per_recipient, 0 of 5 in 1h, free now",
        "counted    resend_after, free now",
    ]


def explained(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    assert exit_code("explain", "--json", *args) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    told: dict[str, Any] = json.loads(out)
    return told


def test_explain_in_json_is_one_document(contract: Path, message: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, "-c", contract, message)
    assert told["lane"] == "otp"
    assert told["rule"] == "auth-sender"
    assert [step["rule"] for step in told["earlier"]] == ["explicit"]
    assert told["upstreams"] == ["postmark", "ses"]
    assert told["warm"]["ses"] == {
        "least": 2,
        "most": 10,
        "reason": "warm: auto, 1 and 1 ahead; more as bursts need them, up to sessions.max",
        "running": None,
    }
    assert told["dkim"] == {"domain": "auth.example.com", "selectors": ["s1", "e1"]}
    assert told["expires_ms"] == 600_000
    assert told["limits"]["per_recipient"] == [{"count": 5, "period_ms": 3_600_000}]
    assert told["refused"] == []


def test_explain_takes_the_envelope_that_it_is_given(
    contract: Path, message: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message.write_bytes(MESSAGE.replace(b"auth.example.com", b"example.org").replace(b"482913", b"none"))
    given = ("--from", "x@example.org", "--to", "y@example.com", "--client", "10.1.9.9")
    told = explained(capsys, "-c", contract, message, *given)
    assert (told["rule"], told["upstreams"], told["dkim"]) == ("by-port", ["ses"], None)
    assert told["recipients"] == ["y@example.com"]
    told = explained(capsys, "-c", contract, message, "--priority", "4")
    assert told["rule"] == "asked-for"
    told = explained(capsys, "-c", contract, message)
    assert (told["lane"], told["rule"], told["warm"]) == ("bulk", None, {})
    assert len(told["earlier"]) == 5


def test_explain_shows_no_code(contract: Path, message: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message.write_bytes(MESSAGE.replace(b"auth.example.com", b"example.org"))
    told = explained(capsys, "-c", contract, message, "--client", "10.1.9.9", "--to", "a@example.com")
    assert told["rule"] == "by-port"
    assert exit_code("explain", "-c", contract, message) == 0
    assert "482913" not in json.dumps(told) + capsys.readouterr().out


def test_explain_reports_the_limits_that_a_message_breaks(
    contract: Path, message: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [item for n in range(501) for item in ("--to", f"u{n}@example.net")]
    assert explained(capsys, "-c", contract, message, *many)["refused"] == ["501 recipients, 500 are taken"]


@pytest.mark.fresh
def test_explain_reads_standard_input(contract: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relay", "explain", "-c", str(contract), "-"],
        cwd=ROOT,
        input=MESSAGE,
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"lane       otp (rule auth-sender)\n")


@pytest.mark.parametrize(
    ("content", "args", "reason"),
    [
        (None, (), "No such file or directory"),
        (b"Subject: a\0b\r\n\r\n", (), "would be refused: 554 5.6.0 NUL in the message"),
        (MESSAGE, ("--listener", "127.0.0.1:1"), "there is no listener 127.0.0.1:1; there is 127.0.0.1:2525"),
    ],
)
def test_explain_reports_why_a_message_is_refused(
    contract: Path,
    tmp_path: Path,
    content: bytes | None,
    args: tuple[str, ...],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "x.eml"
    if content is not None:
        path.write_bytes(content)
    assert exit_code("explain", "-c", contract, path, *args) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert reason in said.err
