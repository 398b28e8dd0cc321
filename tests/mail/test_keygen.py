"""The command `keygen`."""

from __future__ import annotations

import argparse
import re
import stat
from pathlib import Path

import pytest

from relay.cli.keys import register
from relay.config.model import DkimDomain, DkimKey
from relay.config.private_keys import check_dkim_key
from relay.mail.dkim import Signer
from relay.mail.message import parse
from tests.mail.material import OTP


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers(required=True))
    args = parser.parse_args(words)
    code = args.run(args)
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(("flags", "kind"), [((), "rsa"), (("--ed25519",), "ed25519")])
def test_a_key_is_written_for_its_owner_only_and_its_record_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], kind: str
) -> None:
    assert run("keygen", "Auth.Example.com", "s1", *flags, "--out", str(tmp_path / "keys")) == 0
    path = tmp_path / "keys" / "auth.example.com.s1.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    said = capsys.readouterr()
    [zone] = [line for line in said.out.splitlines() if not line.startswith(";")]
    assert zone.startswith("s1._domainkey.auth.example.com. IN TXT ( ")
    strings = re.findall(r'"([^"]*)"', zone)
    assert all(len(string) <= 255 for string in strings)
    assert "".join(strings).startswith(f"v=DKIM1; k={kind}; p=")
    assert "PRIVATE" not in said.out + said.err
    assert str(path) in said.out
    # The relay loads the key that keygen made.
    pem = path.read_bytes()
    assert check_dkim_key(path, pem) is None
    made = Signer([DkimDomain(domain="auth.example.com", keys=(DkimKey(selector="s1", key_file=path),))], {path: pem})
    keyset = made.select("auth.example.com")
    assert keyset is not None
    assert made.prepare(parse(OTP), keyset, now=1).sign().selectors == ("s1",)


def test_an_existing_key_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "example.com.s1.pem"
    path.write_text("precious")
    assert run("keygen", "example.com", "s1", "--out", str(tmp_path)) == 2
    assert path.read_text() == "precious"
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("domain", "selector", "said"),
    [
        ("", "s1", "domain"),
        ("a b", "s1", "domain"),
        ("../x", "s1", "domain"),
        ("x.example", "a/b", "selector"),
        ("x.example", "s;1", "selector"),
    ],
)
def test_an_impossible_name_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], domain: str, selector: str, said: str
) -> None:
    assert run("keygen", domain, selector, "--out", str(tmp_path / "new")) == 2
    assert f"not a {said}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_impossible_folder_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run("keygen", "example.com", "s1", "--out", str(tmp_path / "file" / "below")) == 2
    said = capsys.readouterr().err
    assert said.startswith("otp-relay: ")
    assert said.count("\n") == 1
