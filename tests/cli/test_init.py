"""The command `init`: what it writes works, what it can't write leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from relay.__main__ import main
from relay.config.load import load
from relay.mail.dkim import dns_record
from relay.providers.registry import find_preset, presets
from relay.setup import dkim_keys
from relay.setup.folder import Exists, NewFile, move, staged
from relay.setup.plan import LOCAL, OTHER, PLACEHOLDER, RUNNERS, SELECTORS, Account, Plan, Runner
from relay.setup.starting import compose_text, unit_text
from relay.setup.yaml_text import relay_yaml, scalar
from tests.cli.terminal import Terminal
from tests.cli.test_ready import free_port
from tests.config.test_schema import VALIDATOR, read
from tests.support.relay import RelayProcess, command
from tests.support.upstream import Upstream

SECRET = "hunter2-hunter2"
NAMES = [*(name for name, _, _ in presets()), "ses-eu-west-1", OTHER, LOCAL]
YES = ("init", "--yes", "--no-doctor", "--domain", "example.com")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for selector, is_ed25519 in SELECTORS:
        path = folder / dkim_keys.file_name("example.com", selector)
        path.write_bytes(dkim_keys.pem_of(dkim_keys.new_key(is_ed25519=is_ed25519)))
        path.chmod(0o600)
    return folder


def account(preset: str, *, filled: bool) -> Account:
    """An account with nothing given, or with everything."""
    empty = Account(preset, preset)
    if not filled:
        return empty
    host = "smtp.example.org" if empty.needs_host else None
    oauth2 = {"tenant": "0f0f", "client_id": "abc"} if empty.with_token else {}
    return Account(preset, preset, host, "user: '${x}' \"#1", SECRET, oauth2)


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("preset", NAMES)
def test_the_configuration_for_each_preset_is_accepted(
    preset: str, filled: bool, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = account(preset, filled=filled)
    plan = Plan((one,), "example.com", "127.0.0.1:2525", "plain", ("*@otp.example.com",))
    (tmp_path / "keys").symlink_to(keys)
    (tmp_path / "secrets").mkdir(mode=0o700)
    secret = tmp_path / "secrets" / one.name
    secret.write_text(f"{one.secret or PLACEHOLDER}\n")
    secret.chmod(0o600)
    config = tmp_path / "relay.yaml"
    config.write_text(relay_yaml(plan))
    assert main(["check", "-c", str(config)]) == 0, capsys.readouterr().err
    assert [error.message for error in VALIDATOR.iter_errors(read(config.read_text()))] == []
    upstream = load(config, {}).config.upstreams[one.name]
    if filled and one.needs_username is not None:
        assert upstream.username == one.username
    if one.has_secret and not one.with_token:
        assert upstream.password is not None
        assert upstream.password.get_secret_value() == (one.secret or PLACEHOLDER)
    assert (not plan.unfilled) == (filled or preset == LOCAL)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("listen", ["127.0.0.1:2525", "0.0.0.0:2525", "[::1]:2526"])
def test_two_accounts_anywhere_are_accepted(runner: Runner, listen: str, keys: Path, tmp_path: Path) -> None:
    accounts = (account("postmark", filled=True), account("mailgun-eu", filled=True))
    plan = Plan(accounts, "example.com", listen, runner)
    allow = () if plan.listens_privately else ("10.0.0.0/8",)
    plan = Plan(accounts, "example.com", listen, runner, (), allow)
    (tmp_path / "keys").symlink_to(keys)
    (tmp_path / "secrets").mkdir()
    for one in accounts:
        (tmp_path / "secrets" / one.name).write_text("x")
    (tmp_path / "relay.yaml").write_text(relay_yaml(plan))
    config = load(tmp_path / "relay.yaml", {}).config
    assert config.lanes["otp"].upstreams == ("postmark", "mailgun-eu")
    assert config.lanes["bulk"].upstreams == ("mailgun-eu",)
    assert config.lanes["otp"].hedge_s == 2.0


def test_a_service_reads_the_copies_of_systemd(keys: Path, tmp_path: Path) -> None:
    plan = Plan((account("postmark", filled=True),), "example.com", "127.0.0.1:2525", "systemd")
    copies = tmp_path / "copies"
    shutil.copytree(keys, copies)
    (copies / "postmark").write_text(SECRET)
    config = tmp_path / "relay.yaml"
    config.write_text(relay_yaml(plan))
    loaded = load(config, {"CREDENTIALS_DIRECTORY": str(copies)}).config
    assert {key.key_file.parent for key in loaded.dkim[0].keys} == {copies}
    assert loaded.upstreams["postmark"].password_file == copies / "postmark"
    assert str(loaded.store) == "/var/lib/otp-relay/relay.db"


@pytest.mark.parametrize(
    "text", ["plain", "123", "true", "Null", "a: b", "#c", "${HOME}", 'q"q', "ü", "user@example.com", "*", "0x1", "-"]
)
def test_a_text_in_yaml_is_read_as_the_same_text(text: str, tmp_path: Path) -> None:
    from relay.config.document import read as read_document

    assert read_document(f"key: {scalar(text)}   # a comment\n".encode(), {}).data == {"key": text}


def test_everything_is_written_with_secrets_that_only_the_owner_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    out = tmp_path / "new" / "relay"
    arguments = ("--preset", "postmark", "--password-file", str(tmp_path / "token"), "--out", str(out))
    assert main([*YES, *arguments]) == 0
    said = capsys.readouterr()
    files = {str(path.relative_to(out)): path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()}
    assert files == {
        "relay.yaml": 0o644,
        "relay.schema.json": 0o644,
        "dns.txt": 0o644,
        "keys/example.com.s1.pem": 0o600,
        "keys/example.com.e1.pem": 0o600,
        "secrets/postmark": 0o600,
    }
    assert {path.stat().st_mode & 0o777 for path in (out / "keys", out / "secrets")} == {0o700}
    assert (out / "secrets/postmark").read_text() == f"{SECRET}\n"
    assert SECRET not in said.out + said.err + (out / "relay.yaml").read_text()
    assert f"{out}/relay.yaml: ok (" in said.out
    assert (out / "dns.txt").read_text() in said.out
    assert f"otp-relay run -c {out}/relay.yaml" in said.out
    assert list(out.parent.iterdir()) == [out]
    Draft202012Validator.check_schema(json.loads((out / "relay.schema.json").read_text()))
    assert (out / "relay.yaml").read_text().startswith("# yaml-language-server: $schema=relay.schema.json\n")


def test_the_records_are_those_of_the_keys(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    out = tmp_path / "out"
    assert main([*YES, "--preset", "sendgrid", "--second", "mailjet", "--out", str(out)]) == 0
    text = (out / "dns.txt").read_text()
    for selector, _ in SELECTORS:
        (line,) = re.findall(rf"^{selector}\._domainkey\.example\.com\. IN TXT \( (.*) \)$", text, re.MULTILINE)
        key = load_pem_private_key((out / f"keys/example.com.{selector}.pem").read_bytes(), None)
        assert "".join(re.findall(r'"([^"]*)"', line)) == dns_record(key)  # type: ignore[arg-type]
    assert 'example.com. IN TXT "v=spf1 include:sendgrid.net include:spf.mailjet.com ~all"' in text
    assert '_dmarc.example.com. IN TXT "v=DMARC1; p=none; ' in text


def test_what_is_left_to_fill_in_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([*YES, "--preset", "microsoft365", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{out}/secrets/microsoft365: the password, in one line" in said
    assert f"{out}/relay.yaml: upstreams.microsoft365.username: " in said
    assert f"{out}/relay.yaml: upstreams.microsoft365.oauth2.client_id" in said


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/example.com.e1.pem").write_text("mine")
    assert main([*YES, "--preset", "resend", "--out", str(tmp_path)]) == 2
    assert "keys/example.com.e1.pem exists; nothing is written" in capsys.readouterr().err
    (tmp_path / "relay.yaml").write_text("mine, too")
    assert main([*YES, "--preset", "resend", "--out", str(tmp_path)]) == 2
    assert "relay.yaml exists; nothing is written" in capsys.readouterr().err
    assert main([*YES, "--preset", "resend", "--out", str(tmp_path / "relay.yaml")]) == 2
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        "relay.yaml",
        "keys",
        "keys/example.com.e1.pem",
    }


def test_a_folder_that_is_in_use_gets_the_new_files(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/other").write_text("mine")
    assert main([*YES, "--preset", "resend", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "secrets/other").read_text() == "mine"
    assert (tmp_path / "secrets/resend").exists()


def test_what_appears_meanwhile_is_kept_and_the_rest_is_taken_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    files = {"a": NewFile(b"new"), "b": NewFile(b"new"), "keys/c": NewFile(b"new", is_secret=True)}
    (out / "keys").mkdir()
    (out / "keys/c").write_text("mine")
    with staged(out, files) as folder, pytest.raises(Exists, match="keys/c"):
        move(folder, out)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "out",
        "out/keys",
        "out/keys/c",
    ]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--preset", "postmrak"), "--preset: there is no preset 'postmrak'; did you mean postmark?"),
        ((), "--preset is missing"),
        (("--preset", "postmark", "--second", "x y"), "--second: there is no preset"),
        (("--preset", "postmark", "--listen", "2525"), "--listen: expected an address"),
        (("--preset", "postmark", "--listen", "127.0.0.1:8025"), "--listen: 127.0.0.1:8025 is that of metrics"),
        (("--preset", "postmark", "--sender", "me"), "--sender: expected an address or a pattern"),
        (("--preset", "postmark", "--listen", "0.0.0.0:25", "--allow", "all"), "--allow: expected an IP network"),
        (("--preset", "postmark", "--domain", "a b"), "--domain: expected a domain"),
        (("--preset", "postmark", "--password-file", "missing"), "password file: no such file"),
        (("--preset", "other", "--host", "a:25"), "--host: expected a host name"),
        (("--preset", "postmark", "--listen", "unix:/s", "--run", "compose"), "--listen: expected host:port"),
    ],
)
def test_an_option_that_makes_no_sense_is_exit_2_and_leaves_nothing(
    arguments: tuple[str, ...],
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*YES, *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"otp-relay: {why}")
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_it_asks_nothing(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "relay", "init", "--preset", "postmark"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert said.returncode == 2
    assert said.stderr == "otp-relay: init asks at a terminal; without one, give --yes, --preset and --domain\n"
    assert list(tmp_path.iterdir()) == []


async def test_the_password_may_come_by_stdin(tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = await command(
        *YES, "--preset", "smtp2go", "--username", "me", "--password-file", "-", "--out", out, given=b"hunter3\nrest\n"
    )
    assert (said.code, said.err) == (0, "")
    assert (out / "secrets/smtp2go").read_text() == "hunter3\n"
    assert "hunter3" not in said.out


def test_a_person_is_asked_and_corrected(tmp_path: Path) -> None:
    with Terminal("init", "--no-doctor", folder=tmp_path) as terminal:
        terminal.answer("Provider: ", "mailgn")
        terminal.wait_for("did you mean mailgun?")
        terminal.answer("Provider: ", "mailgun")
        terminal.answer("login (Enter: later): ", "postmaster@mg.example.com")
        terminal.answer("Password or token for mailgun, not shown", SECRET)
        terminal.answer("Second provider [none]: ", "postmark")
        terminal.answer("Password or token for postmark, not shown", "")
        terminal.answer("Domain of your From addresses", "example.com")
        terminal.answer("From addresses of codes", "no-reply@example.com, *@otp.example.com")
        terminal.answer("What starts the relay", "docker")
        terminal.wait_for("expected systemd, compose or plain")
        terminal.answer("What starts the relay", "compose")
        terminal.answer("Where your apps submit mail on the host [127.0.0.1:2525]: ", "")
        terminal.answer("Networks of your apps, with commas [127.0.0.0/8", "")
        assert terminal.end() == 0
    out = tmp_path / "otp-relay"
    assert SECRET not in terminal.shown
    assert (out / "secrets/mailgun").read_text() == f"{SECRET}\n"
    assert f"{out}/secrets/postmark: the password, in one line" in terminal.shown.replace("\r", "")
    config = load(out / "relay.yaml", {}).config
    assert config.upstreams["mailgun"].username == "postmaster@mg.example.com"
    assert config.rules[1].match.sender == ("no-reply@example.com", "*@otp.example.com")
    assert str(config.listen[0].address) == "0.0.0.0:2525"
    assert (out / "compose.yaml").exists()


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    with Terminal("init", folder=tmp_path) as terminal:
        terminal.answer("Provider: ", "postmark")
        terminal.answer("not shown", SECRET)
        terminal.wait_for("Second provider")
        assert terminal.interrupt() == 130
    assert SECRET not in terminal.shown
    assert "Traceback" not in terminal.shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interrupt_while_files_are_moved_takes_them_back(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (out / "mine").mkdir(parents=True)
    link, calls = os.link, iter(range(1, 4))

    def interrupted(source: Path, target: Path) -> None:
        if next(calls) == at:
            raise KeyboardInterrupt
        link(source, target)

    monkeypatch.setattr(os, "link", interrupted)
    files = {name: NewFile(b"new") for name in ("a", "b", "keys/c")}
    with pytest.raises(KeyboardInterrupt), staged(out, files) as folder:
        move(folder, out)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["out", "out/mine"]


async def test_a_relay_with_it_signs_and_sends_a_code(tmp_path: Path) -> None:
    out, port = tmp_path / "out", free_port()
    async with Upstream() as upstream:
        made = await command(*YES, "--preset", "local", "--listen", f"127.0.0.1:{free_port()}", "--out", out)
        assert made.code == 0
        config = out / "relay.yaml"
        text = config.read_text().replace("port: 1025", f"port: {upstream.port}")
        config.write_text(text.replace("127.0.0.1:8025", f"127.0.0.1:{port}"))
        async with RelayProcess(config):
            said = await command("send-test", "user@example.net", "-c", config)
    assert (said.code, said.err) == (0, "")
    assert "otp (rule looks-like-a-code)" in said.out
    assert "signed by s1, e1" in said.out
    (delivered,) = upstream.messages
    assert delivered.content.count(b"DKIM-Signature:") == 2


def test_the_unit_hands_over_every_secret_of_the_configuration(tmp_path: Path) -> None:
    plan = Plan((account("postmark", filled=True),), "example.com", "127.0.0.1:2525", "systemd")
    unit = unit_text(plan)
    named = set(re.findall(r"\$\{CREDENTIALS_DIRECTORY:-\w+\}/([\w.-]+)", relay_yaml(plan)))
    assert set(re.findall(r"^LoadCredential=([^:]+):/etc/otp-relay/", unit, re.MULTILINE)) == named
    assert "#LoadCredential" not in unit
    assert unit.index("LoadCredential=") < unit.index("[Install]")


@pytest.mark.real
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    plan = Plan((account("postmark", filled=True),), "example.com", "127.0.0.1:2525", "systemd")
    text = re.sub(r"^(Exec\w+=)\S*otp-relay ", r"\1/bin/true ", unit_text(plan), flags=re.MULTILINE)
    (tmp_path / "otp-relay.service").write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "otp-relay.service")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "otp-relay.service" not in said.stderr
    assert said.returncode == 0


def test_the_compose_file_has_what_the_configuration_needs() -> None:
    plan = Plan((account("postmark", filled=True),), "example.com", "127.0.0.1:2530", "compose", (), ("10.0.0.0/8",))
    (service,) = yaml.safe_load(compose_text(plan))["services"].values()
    config = yaml.safe_load(relay_yaml(plan))
    assert service["ports"] == ["127.0.0.1:2530:2530"]
    assert config["listen"] == [{"address": "0.0.0.0:2530", "allow": ["10.0.0.0/8"]}]
    assert service["user"] == f"{os.getuid()}:{os.getgid()}"
    assert service["volumes"] == [".:/etc/otp-relay:ro", "./data:/etc/otp-relay/data"]
    assert config["store"] == "data/relay.db"
    assert service["healthcheck"]["test"][:3] == ["CMD", "otp-relay", "ready"]
    assert service["read_only"] is True


def test_each_preset_can_be_written() -> None:
    assert all(find_preset(name) is not None for name in NAMES if name not in (OTHER, LOCAL))
