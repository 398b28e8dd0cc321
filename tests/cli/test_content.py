"""The commands `detect` and `lint`: what they say about a message, a mailbox, a folder, and what they can't read."""

from __future__ import annotations

import argparse
import io
import json
import mailbox
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from relay.cli.common import CommandFailed
from relay.cli.content import lint, register
from relay.mail.codes import detector
from tests.mail.codes.material import clean_mails, mail
from tests.mail.lint.material import CLEAN, CODE

NEWS = mail("News", "Order now, and get 20 % off. Order 482913.")


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers(required=True))
    args = parser.parse_args(list(map(str, words)))
    code = args.run(args)
    assert isinstance(code, int)
    return code


def objects(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a code's mail and another one, and below it an mbox file of three and one more mail."""
    folder = tmp_path / "mails"
    (folder / "older").mkdir(parents=True)
    (folder / "code.eml").write_bytes(CLEAN)
    (folder / "news.eml").write_bytes(NEWS)
    (folder / "older" / "one.eml").write_bytes(NEWS)
    box = mailbox.mbox(folder / "older" / "month.mbox")
    for content in (CLEAN, NEWS, CLEAN):
        box.add(content)
    box.close()
    return folder


def test_detect_says_what_a_message_is_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "code.eml"
    path.write_bytes(CLEAN.replace(b"Your Acme sign-in code", f"{CODE} is your Acme code".encode()))
    assert run("detect", path) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{path}: otp (+")
    assert "'•••••• is your Acme code': code-shaped token" in text
    assert run("detect", path, "--json") == 0
    (document,) = objects(capsys)
    assert (document["file"], document["number"], document["content"]) == (str(path), None, "otp")
    assert document["score"] > 0
    assert document["doubtful"] is False
    assert document["reasons"][0].startswith("code-shaped token")
    assert CODE not in text + json.dumps(document)


def test_detect_counts_a_folder_and_lists_what_is_doubtful(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector, "DOUBTFUL", 0.0)
    assert run("detect", folder) == 0
    assert capsys.readouterr().out == "6 messages: 3 otp, 3 other; 0 doubtful\n"
    monkeypatch.setattr(detector, "DOUBTFUL", 100.0)
    assert run("detect", folder) == 0
    first, *doubtful = capsys.readouterr().out.splitlines()
    assert first == "6 messages: 3 otp, 3 other; 6 doubtful"
    older = folder / "older"
    assert [line.partition(": ")[0] for line in doubtful] == [
        *(str(folder / name) for name in ("code.eml", "news.eml")),
        *(f"{older / 'month.mbox'} message {number}" for number in (1, 2, 3)),
        str(older / "one.eml"),
    ]


def test_detect_has_a_line_of_json_for_each_message(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("detect", "--json", folder / "older", folder / "news.eml") == 0
    found = [(Path(one["file"]).name, one["number"], one["content"]) for one in objects(capsys)]
    assert found == [
        ("month.mbox", 1, "otp"),
        ("month.mbox", 2, "other"),
        ("month.mbox", 3, "otp"),
        ("one.eml", None, "other"),
        ("news.eml", None, "other"),
    ]


def test_detect_reads_an_mbox_file_from_stdin_and_knows_a_separator_by_its_date(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (folder / "older" / "month.mbox").read_bytes() + b"\nFrom here on, all is quoted.\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run("detect", "-") == 0
    assert capsys.readouterr().out.startswith("3 messages: 2 otp, 1 other; ")


def test_detect_says_so_where_there_is_no_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("detect", tmp_path) == 0
    assert capsys.readouterr().out == "0 messages: 0 otp, 0 other; 0 doubtful\n"


def test_lint_takes_one_message_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandFailed, match="an mbox file; lint takes one message"):
        lint(argparse.Namespace(file=str(folder / "older" / "month.mbox"), config=None, json=False))


def test_detect_goes_on_where_a_file_can_not_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = folder / "none.eml"
    assert run("detect", missing, folder / "code.eml", "--json") == 2
    said = capsys.readouterr()
    assert said.err == f"otp-relay: {missing}: No such file or directory\n"
    assert json.loads(said.out)["content"] == "otp"


def test_both_read_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command, content, text in (("detect", NEWS, "-: other"), ("lint", NEWS, "-: error: ")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert run(command, "-") == (0 if command == "detect" else 1)
        assert text in capsys.readouterr().out


@pytest.mark.parametrize("language", ["ar", "hi", "ja", "ru"])
def test_detect_writes_any_script(language: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = next(each for each in clean_mails() if each.language == language)
    (tmp_path / "x.eml").write_bytes(mail(one.subject, one.text(CODE)))
    run("detect", tmp_path / "x.eml", "--json")
    (document,) = objects(capsys)
    assert document["subject"] == one.subject


def test_lint_is_silent_about_a_good_message_and_hints_are_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "good.eml"
    path.write_bytes(CLEAN)
    assert run("lint", path) == 0
    assert capsys.readouterr().out == ""
    path.write_bytes(CLEAN.replace(b"Auto-Submitted: auto-generated\r\n", b""))
    assert run("lint", path) == 0
    assert capsys.readouterr().out.startswith(f"{path}: hint: auto-submitted: ")


def test_lint_prints_a_line_for_each_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.eml"
    path.write_bytes(CLEAN.replace(b"Subject: Your", b"Precedence: bulk\r\nSubject: FREE!! Your"))
    assert run("lint", path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1:3] for line in lines] == [["warning", "precedence"], ["warning", "shouting"]]
    assert run("lint", path, "--json") == 1
    documents = objects(capsys)
    assert [(one["rule"], one["level"]) for one in documents] == [("precedence", "warning"), ("shouting", "warning")]
    assert all(set(one) == {"rule", "level", "text"} for one in documents)


def test_lint_knows_the_configured_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from relay.cli.keys import keygen

    path, config = tmp_path / "mail.eml", tmp_path / "relay.yaml"
    path.write_bytes(CLEAN)
    base = "upstreams: {a: {host: 127.0.0.1, tls: none}}\nlanes: {otp: {upstreams: a}}\n"
    config.write_text(base)
    assert run("lint", path, "-c", config) == 1
    assert f"{path}: warning: no-key: " in capsys.readouterr().out
    keygen(argparse.Namespace(domain="example.com", selector="s1", ed25519=True, out=tmp_path))
    key = tmp_path / "example.com.s1.pem"
    config.write_text(f"{base}dkim: [{{domain: example.com, keys: [{{selector: s1, key_file: {key}}}]}}]\n")
    capsys.readouterr()
    assert run("lint", path, "-c", config) == 0
    config.write_text("nonsense: 1\n")
    with pytest.raises(SystemExit) as ended:
        run("lint", path, "-c", config)
    assert ended.value.code == 2


def test_lint_reports_a_missing_file_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lint", tmp_path / "none.eml") == 2
    assert capsys.readouterr().err == f"otp-relay: {tmp_path}/none.eml: No such file or directory\n"


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert run("detect", tmp_path / "closed") == 2
