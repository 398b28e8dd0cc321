"""`suppress` and `log erase` on the files of a relay that isn't running, and beside one that is."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relay.cli import config as config_commands
from relay.cli import mail, suppress
from relay.store.sqlite.schema import prepare
from tests.support.relay import write_config


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """One command of the real parser; `given` is its stdin."""
    http = {"address": f"unix:{tmp_path}/http.sock"}
    config = write_config(tmp_path, {"one": {"host": "127.0.0.1", "port": 1, "tls": "none"}}, http=http)
    prepare(tmp_path / "relay.db")

    def command(*arguments: str, given: str = "") -> Result:
        parser = argparse.ArgumentParser()
        subparsers = parser.add_subparsers()
        mail.register(subparsers)
        suppress.register(subparsers)
        config_commands.register(subparsers)
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        try:
            args = parser.parse_args([*arguments, "-c", str(config)])
            code = args.run(args)
        except SystemExit as end:
            code = int(str(end.code))
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return command


def test_what_is_added_is_listed_until_it_is_removed(run: Run) -> None:
    assert run("suppress", "list") == Result(0, "", "")
    assert run("suppress", "add", "Bob@example.net", "--reason", "left us", "--for", "30d").out == "Bob@example.net\n"
    assert run("suppress", "add", "eve@example.net").code == 0
    assert run("suppress", "add", "EVE@example.net").code == 1
    listed = [json.loads(line) for line in run("suppress", "list", "--json").out.splitlines()]
    assert [one["address"] for one in listed] == ["eve@example.net", "Bob@example.net"]
    assert listed[1].keys() == {"address", "cause", "reason", "upstream", "at", "until"}
    assert (listed[1]["cause"], listed[1]["reason"], listed[0]["until"]) == ("manual", "left us", None)
    assert "left us" in run("suppress", "list", "bob@example.net").out
    assert json.loads(run("suppress", "remove", "bob@example.net", "--json").out) == {"changed": ["bob@example.net"]}
    gone = run("suppress", "remove", "bob@example.net")
    assert (gone.code, gone.out, gone.err) == (1, "", "otp-relay: this address is not suppressed\n")
    assert run("suppress", "list", "bob@example.net").code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("add", "bob"), ("add", "b ob@example.net"), ("add", "bob@example.net> SIZE=1"),
        ("add", "b@x.test", "--for", "soon"),
        ("add", "b@x.test", "--for", "0s"), ("add", "b@x.test", "--reason", "two\nlines"), ("remove", "bob"),
        ("add", "*@example.net"), ("import", "-", "--cause", "spite"),
        ("list", "--limit", "0"), ("list", "--cause", "spite"), ("list", "h:12"), ("import", "/nowhere/at/all"), (),
    ],
)  # fmt: skip
def test_what_makes_no_sense_exits_2(run: Run, words: tuple[str, ...]) -> None:
    assert run("suppress", *words).code == 2


def test_an_import_adds_what_it_can_read_and_names_what_it_cannot(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text(
        "# from the ESP\n\nbob@example.net\n"
        '"eve@example.net","said ""no"", twice",2030-01-31T12:00:00Z\n'
        "nobody\n"
        "ann@example.net,left,tomorrow\n"
        '"open@example.net\n'
        "joe@example.net,,2030-01-31T12:00:00Z,spite\n"
        "sue@example.net,,,complaint,more\n"
        "*@example.net\n"
        "last@example.net,left"
    )
    said = run("suppress", "import", str(file), "--reason", "told by the ESP")
    assert (said.code, said.out) == (1, "3 added or changed, 6 bad lines\n")
    assert [line.split(":")[2] for line in said.err.splitlines()] == ["5", "6", "7", "8", "9", "10"]
    exported = run("suppress", "export").out
    assert sorted(exported.splitlines()) == [
        'bob@example.net,told by the ESP',
        'eve@example.net,"said ""no"", twice",2030-01-31T12:00:00.000Z',
        'last@example.net,left',
    ]  # fmt: skip
    assert run("suppress", "import", "-", given=exported) == Result(1, "0 added or changed\n", "")
    for address in ("bob", "eve", "last"):
        assert run("suppress", "remove", f"{address}@example.net").code == 0
    assert run("suppress", "import", "-", given=exported).code == 0
    assert sorted(run("suppress", "export").out.splitlines()) == sorted(exported.splitlines())


def test_an_export_and_its_import_keep_the_cause(run: Run) -> None:
    file = "carol@example.net,abuse,,complaint\ndave@example.net,5.1.1,2035-01-31T12:00:00.000Z,bounce\n"
    assert run("suppress", "import", "-", given=file).code == 0
    assert run("suppress", "import", "-", "--cause", "unsubscribe", given="erin@example.net\n").code == 0
    exported = run("suppress", "export").out
    assert sorted(exported.splitlines()) == [*file.splitlines(), "erin@example.net,,,unsubscribe"]
    assert run("suppress", "import", "-", "--cause", "manual", given=exported) == Result(1, "0 added or changed\n", "")
    listed = [json.loads(line) for line in run("suppress", "list", "--json").out.splitlines()]
    assert {one["address"][0]: one["cause"] for one in listed} == {
        "c": "complaint",
        "d": "bounce",
        "e": "unsubscribe",
    }


def test_an_import_says_what_has_ended_already(run: Run) -> None:
    file = "old@example.net,left,2020-01-31T12:00:00Z\nnew@example.net\n"
    said = run("suppress", "import", "-", given=file)
    assert said == Result(0, "1 added or changed, 1 left out, whose end is past\n", "")
    assert json.loads(run("suppress", "import", "-", "--json", given=file).out) == {
        "changed": 0, "bad_lines": 0, "past": 1,
    }  # fmt: skip
    assert run("suppress", "list", "old@example.net").code == 1


def test_an_address_that_is_added_again_keeps_the_reason_and_the_end_that_it_has(run: Run) -> None:
    run("suppress", "add", "bob@example.net", "--reason", "left us", "--for", "30d")
    before = run("suppress", "list", "--json").out
    assert run("suppress", "add", "bob@example.net").code == 1
    assert run("suppress", "list", "--json").out == before
    assert run("suppress", "add", "bob@example.net", "--for", "60d").code == 0
    assert json.loads(run("suppress", "list", "--json").out)["reason"] == "left us"


def test_the_list_fits_a_terminal_and_has_whole_reasons(run: Run) -> None:
    reason = "it left us " * 20
    run("suppress", "add", "bob@example.net", "--reason", reason)
    line, *more = run("suppress", "list").out.splitlines()
    assert line.startswith("bob@example.net  manual at ")
    assert " ".join(" ".join(more).split()) == reason.strip()
    assert max(map(len, (line, *more))) <= 80


def test_a_list_that_ends_at_its_limit_says_so(run: Run) -> None:
    for name in ("ann", "bob", "eve"):
        run("suppress", "add", f"{name}@example.net")
    cut = run("suppress", "list", "--limit", "2", "--json")
    assert (cut.code, len(cut.out.splitlines())) == (0, 2)
    assert cut.err == "otp-relay: these are the last 2, there are more: --limit N\n"
    assert run("suppress", "list", "--limit", "3", "--json").err == ""


def test_an_erased_address_is_not_exported_but_can_be_removed_by_its_hash(run: Run) -> None:
    run("suppress", "add", "bob@example.net")
    erased = run("log", "erase", "bob@example.net", "--json")
    assert (erased.code, json.loads(erased.out)["erased"]["suppressions"]) == (0, 1)
    assert run("log", "erase", "bob@example.net").code == 1
    said = run("suppress", "export")
    assert (said.code, said.out) == (0, "")
    assert "1 left out" in said.err
    entry: Any = json.loads(run("suppress", "list", "--json").out)
    assert entry["address"].startswith("h:")
    assert run("suppress", "list", "bob@example.net").code == 0
    assert run("suppress", "remove", entry["address"]).code == 0


@pytest.mark.parametrize("action", ["list", "remove"])
def test_a_hash_of_finished_mail_is_refused_with_the_reason(run: Run, action: str) -> None:
    said = run("suppress", action, "h:5056a1b2c3d4e5f6@example.net")
    assert (said.code, said.out) == (2, "")
    assert "one of finished mail" in said.err


@pytest.mark.parametrize(
    "words", [("erase",), ("erase", "bob"), ("erase", "b@x.test", "--lane", "otp"), ("01A", "01B")]
)
def test_log_erase_takes_one_address_and_nothing_else(run: Run, words: tuple[str, ...]) -> None:
    assert run("log", *words).code == 2


@pytest.mark.parametrize(
    ("lane", "found"),
    [("auth", {"bob@example.net": "left us"}), ("news", {"bob@example.net": "left us", "carol@x.test": "complained"})],
)
def test_explain_says_which_recipients_are_suppressed_in_the_lane(
    run: Run, tmp_path: Path, lane: str, found: dict[str, str]
) -> None:
    mail_file = tmp_path / "mail.eml"
    mail_file.write_text(f"From: a@{lane}.example.com\nTo: eve@x.test\nSubject: hi\n\nhello\n")
    words = ("explain", str(mail_file), "--to", "BOB@example.net", "--to", "carol@x.test", "--to", "eve@x.test")
    assert json.loads(run(*words, "--json").out)["suppressed"] == {}
    assert run("suppress", "import", "-", given="bob@example.net,left us\ncarol@x.test,,,complaint\n").code == 0
    stated = json.loads(run(*words, "--json").out)["suppressed"]
    assert {address.lower(): why.split(" on ")[0] for address, why in stated.items()} == found
    assert "suppressed BOB@example.net: left us" in run(*words).out.splitlines()
