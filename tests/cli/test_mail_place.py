"""Which store `log`, `queue` and `report` look at, and what they say where it can't be told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import time

import pytest

from relay.__main__ import main
from relay.store.merge import shard
from relay.store.sqlite.store import open_store
from tests.web.conftest import message, sent

Log = Callable[..., int]
REST = """
upstreams: {sink: {host: 127.0.0.1, port: 1, tls: none}}
lanes: {otp: {upstreams: [sink]}, bulk: {upstreams: [sink]}}
"""


async def fill(path: Path, message_id: str, *, hashed: bool = False) -> None:
    """A store with one message, which was sent."""
    now = time()
    store = await open_store(path, now=time)
    await store.hash_addresses(wanted=hashed)
    await store.put(message(message_id, accepted_at=now), claimed=True)
    await store.settle(sent(message_id, accepted_at=now))
    await store.close()


def relay(folder: Path, text: str, place: str) -> Path:
    """A configuration, and a store with the message 01A at that place."""
    asyncio.run(fill(folder / place, "01A"))
    config = folder / "relay.yaml"
    config.write_text(text)
    return config


@pytest.mark.parametrize(
    ("line", "place"),
    [("store: mail.db", "mail.db"), ("store: ${STATE}/mail.db", "state/mail.db"), ("", "data/relay.db")],
    ids=["relative to the file", "out of the environment", "the default"],
)
@pytest.mark.parametrize("command", ["log", "queue", "report"])
def test_the_store_is_found_from_any_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    place: str,
    command: str,
) -> None:
    monkeypatch.setenv("STATE", "state")
    monkeypatch.chdir("/")
    config = relay(tmp_path, f"{line}\n{REST}", place)
    assert main([command, "-c", str(config)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert {"log": "01A", "queue": "nothing waits", "report": "postmark"}[command] in said.out


def test_an_error_elsewhere_in_the_configuration_does_not_hide_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = relay(tmp_path, "store: mail.db\nlanes: {otp: {expires: 10}}\n", "mail.db")
    with pytest.raises(SystemExit, match="2"):
        main(["check", "-c", str(config)])
    capsys.readouterr()
    assert main(["log", "-c", str(config)]) == 0
    assert "01A" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["log", "queue", "report"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"store: [mail.db]{REST}", ":1:8: store: expected a path, got a list"),
        (f"{REST}store: ${{UNSET}}/mail.db\n", ":4:8: store: the environment variable UNSET isn't set"),
        (f"stroe: mail.db{REST}", ":1:1: stroe: "),
        (f"store: mail.db{REST}rules: [", ":4:9: not YAML"),
    ],
    ids=["wrong type", "variable not set", "misspelt", "not YAML"],
)
def test_an_error_in_the_store_key_is_reported_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, text: str, said: str
) -> None:
    config = relay(tmp_path, text, "mail.db")
    with pytest.raises(SystemExit) as ended:
        main([command, "-c", str(config)])
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out) == (2, "")
    assert f"{config}{said}" in shown.err


def test_a_missing_configuration_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["log", "-c", str(tmp_path / "none.yaml")])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{tmp_path}/none.yaml: no such file\n"


def test_a_hashed_address_is_found_by_the_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text(f"store: relay.db{REST}log: {{addresses: hashed}}\n")
    asyncio.run(fill(tmp_path / "relay.db", "01A", hashed=True))
    assert main(["log", "--to", "User@Example.net", "-c", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "01A" in shown
    assert "h:" in shown
    assert "user@example.net" not in shown.lower()
    assert main(["log", "--to", "another@example.net", "-c", str(config)]) == 1


def test_a_workers_file_is_read_too_and_a_damaged_one_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = relay(tmp_path, f"store: mail.db{REST}", "mail.db")
    asyncio.run(fill(shard(tmp_path / "mail.db", 1), "01B"))
    assert main(["log", "01B", "-c", str(config)]) == 0
    assert main(["log", "-c", str(config)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-4::2]] == ["01B", "01A"]
    shard(tmp_path / "mail.db", 2).write_bytes(b"not a store" * 1_000)
    assert main(["log", "-c", str(config)]) == 1
    assert capsys.readouterr().err == f"otp-relay: {tmp_path}/mail-bulk2.db: not a store of otp-relay\n"
