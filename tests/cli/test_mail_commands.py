from __future__ import annotations

import argparse
import asyncio
import json
import socket
import threading
import time as time_module
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import time

import pytest
import yaml

from relay.cli import config, events, mail, report_text
from relay.cli.text import table
from relay.config.network import UnixAddress
from relay.intake.sockets import bind
from relay.mail.envelope import Envelope, Recipient
from relay.observe.durations import duration
from relay.observe.report import build
from relay.store.model import Attempt, DeliveryRow, RecipientUpdate, Settlement
from relay.store.sqlite.store import open_store
from relay.web.guard import Tokens
from relay.web.server import WebServer
from tests.support.relay import write_config
from tests.web.conftest import make_backend, message, sent

TOKEN = "a-secret-token"
DOWN = "postmark is down: connect: refused"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Result]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    http = {"address": f"unix:{tmp_path}/http.sock", "token": TOKEN}
    return write_config(tmp_path, {"postmark": {"host": "127.0.0.1", "port": 1, "tls": "none"}}, http=http)


@pytest.fixture
def run(config_file: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """One command of the real parser, on that configuration."""

    def command(*arguments: str) -> Result:
        parser = argparse.ArgumentParser()
        subparsers = parser.add_subparsers()
        mail.register(subparsers)
        events.register(subparsers)
        config.register(subparsers)
        try:
            args = parser.parse_args([*arguments, "-c", str(config_file)])
            code = args.run(args)
        except SystemExit as end:
            code = int(str(end.code))
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return command


async def fill(path: Path, now: float) -> None:
    """01A was sent in otp, 01B waits there, 01C and 01D in bulk (01D with two recipients, one of them refused)."""
    store = await open_store(path, now=time)
    await store.put(message("01A", accepted_at=now - 90), claimed=True)
    await store.settle(sent("01A", accepted_at=now - 90))
    await store.put(message("01B", accepted_at=now - 60), claimed=False)
    await store.put(message("01C", "bulk", "list@example.org", accepted_at=now - 30), claimed=False)
    two = Envelope("news@example.com", (Recipient("x@gmail.com"), Recipient("y@gmail.com")))
    last = message("01D", "bulk", accepted_at=now - 20)._replace(envelope=two, providers=("gmail.com", "gmail.com"))
    await store.put(last, claimed=True)
    no = Attempt(0, 1, "postmark", now - 19, "new", "refused", "550 5.1.1 no\x1b[31m such user", {"envelope": 3.0})
    later = Attempt(1, 1, "postmark", now - 19, "new", "deferred", "451 4.2.1 later", {"envelope": 3.0})
    updates = (
        RecipientUpdate(0, "bounced", "postmark", no.reply),
        RecipientUpdate(1, "deferred", "postmark", later.reply, next_at=now + 3000),
    )
    await store.settle(Settlement("01D", updates, (no, later)))
    await store.close()


@pytest.fixture
def filled(config_file: Path) -> float:
    """A store with four messages and no relay beside it; when they were written."""
    now = time()
    asyncio.run(fill(config_file.parent / "relay.db", now))
    return now


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ((), ["01D", "01C", "01B", "01A"]),
        (("--limit", "2"), ["01D", "01C"]),
        (("--lane", "otp"), ["01B", "01A"]),
        (("--state", "sent"), ["01A"]),
        (("--to", "List@example.org"), ["01C"]),
        (("--since", "45s"), ["01D", "01C"]),
    ],
)
def test_log_lists_newest_first_by_every_filter(
    run: Run, filled: float, filters: tuple[str, ...], ids: list[str]
) -> None:
    listed = run("log", *filters, "--json")
    assert listed.code == 0
    assert [one["id"] for one in listed.objects] == ids
    shown = run("log", *filters)
    assert [line.split()[0] for line in shown.out.splitlines() if line[0] != " "] == ids


@pytest.mark.parametrize("arguments", [("log",), ("log", "--json"), ("queue",), ("queue", "--json"), ("queue", "hold")])
def test_an_unknown_lane_is_named_and_exits_1(run: Run, filled: float, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, "--lane", "opt")
    assert (result.code, result.out) == (1, "")
    assert result.err == "otp-relay: there is no lane opt; there are otp, bulk\n"


def test_a_lane_that_is_no_longer_configured_still_shows_its_messages(
    run: Run, config_file: Path, filled: float
) -> None:
    config_file.write_text("store: relay.db\nlanes: {bulk: {}}\n")
    assert [one["id"] for one in run("log", "--lane", "otp", "--json").objects] == ["01B", "01A"]
    assert [one["id"] for one in run("queue", "--lane", "otp", "--json").objects] == ["01B"]


def test_log_shows_one_messages_time_line(run: Run, filled: float) -> None:
    shown = run("log", "01D")
    assert shown.code == 0
    assert "01D  bulk (rule auth-sender)" in shown.out
    assert "to x@gmail.com: bounced via postmark" in shown.out
    assert "postmark (new session)\n       refused in 3.0 ms (envelope 3.0 ms)\n       550 5.1.1 no" in shown.out
    assert "  1 of 2: refused for good by postmark 1.0 s after your app handed it over: 550\n" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "\x1b" not in shown.out
    document = json.loads(run("log", "01D", "--json").out)
    assert [one["state"] for one in document["recipients"]] == ["bounced", "deferred"]
    assert document["recipients"][1]["attempts"][0]["reply"] == "451 4.2.1 later"


def test_a_time_line_shows_the_next_try_and_why_an_attempt_was_abandoned(
    run: Run, config_file: Path, filled: float
) -> None:
    document = json.loads(run("log", "01D", "--json").out)
    due = document["recipients"][1]["next_at"]
    assert datetime.fromisoformat(due).timestamp() == pytest.approx(filled + 3000, abs=0.01)
    assert "next_at" not in document["recipients"][0]
    assert f"    next try  at {due}" in run("log", "01D").out.splitlines()
    tried = Attempt(0, 1, "postmark", filled, "none", "abandoned", DOWN, {"session": 12.5})
    expired = RecipientUpdate(0, "expired", None, "451 4.4.7 otp-relay: expired before it could be sent")
    asyncio.run(
        settle(config_file.parent / "relay.db", Settlement("01B", (expired,), (tried,), note="no upstream was up"))
    )
    shown = run("log", "01B").out
    assert "postmark (no session)\n       abandoned in 12 ms (session 12 ms)\n" in shown
    assert "\n       postmark is down: connect: refused\n" in shown
    assert "no upstream was up" in shown


async def settle(path: Path, settlement: Settlement) -> None:
    store = await open_store(path, now=time)
    await store.settle(settlement)
    await store.close()


@pytest.mark.parametrize("arguments", [("01Z",), ("01Z", "--json"), ("--lane", "nowhere"), ("--state", "expired")])
def test_log_without_a_result_exits_1_with_one_line(run: Run, filled: float, arguments: tuple[str, ...]) -> None:
    found = run("log", *arguments)
    assert (found.code, found.out) == (1, "")
    assert len(found.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("log", "--since", "yesterday"),
        ("log", "--limit", "0"),
        ("log", "--state", "gone"),
        ("log", "--to", "a\udcffb"),
        ("report", "--since", "5"),
        ("queue", "--all"),
        ("queue", "drop"),
        ("queue", "drop", "--all", "--lane", "otp"),
        ("queue", "drop", "01A", "--lane", "otp"),
        ("queue", "drop", "--lane", "otp", "--state", "held"),
        ("queue", "explode", "01A"),
        ("queue", "--ambiguous"),
        ("queue", "drop", "--all", "--ambiguous"),
    ],
)
def test_senseless_arguments_are_a_usage_error_and_change_nothing(
    run: Run, filled: float, arguments: tuple[str, ...]
) -> None:
    before = run("queue", "--json").out
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err
    assert run("queue", "--json").out == before


def test_queue_lists_what_waits_earliest_due_first(run: Run, filled: float) -> None:
    listed = run("queue", "--json")
    assert [one["id"] for one in listed.objects] == ["01B", "01C", "01D"]
    lines = run("queue").out.splitlines()
    assert lines[:2] == ["bulk: 1 deferred, 1 queued", "otp: 1 queued"]
    at = next(at for at, line in enumerate(lines) if line.startswith("01D"))
    assert lines[at].split() == ["01D", "deferred", "y@gmail.com"]
    assert lines[at + 1].startswith("  bulk  due in 50 min  expires in ")
    assert lines[at + 2] == "  451 4.2.1 later"


def test_an_empty_queue_is_no_failure(run: Run, config_file: Path) -> None:
    asyncio.run(make_store(config_file.parent / "relay.db"))
    assert run("queue").out == "nothing waits\n"
    assert run("queue").code == 0
    assert run("queue", "--json").out == ""


async def make_store(path: Path) -> None:
    await (await open_store(path, now=time)).close()


def test_without_a_store_there_is_one_line(run: Run) -> None:
    for command in (("log",), ("queue",), ("report",), ("queue", "hold", "--all")):
        result = run(*command)
        assert result.code == 1
        assert len(result.err.splitlines()) == 1
        assert "relay.db: there is no store" in result.err


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (("hold", "01B"), ["01B"]),
        (("hold", "01B", "01C", "01A"), ["01B", "01C"]),
        (("hold", "--lane", "bulk"), ["01C", "01D"]),
        (("drop", "--all"), ["01B", "01C", "01D"]),
        (("retry", "01D"), ["01D"]),
    ],
)
def test_an_action_without_a_running_relay_changes_the_store(
    run: Run, filled: float, arguments: tuple[str, ...], changed: list[str]
) -> None:
    result = run("queue", *arguments)
    assert (result.code, sorted(result.out.split())) == (0, changed)
    assert sorted(json.loads(run("queue", "release", "--all", "--json").out)["changed"]) == (
        changed if arguments[0] == "hold" else []
    )


def test_an_action_that_changes_nothing_exits_1(run: Run, filled: float) -> None:
    result = run("queue", "retry", "01A")
    assert (result.code, result.out) == (1, "")


def test_unknown_ids_are_named_and_exit_1_while_the_others_change(run: Run, filled: float) -> None:
    result = run("queue", "hold", "01B", "01Z", "01A", "01Y")
    assert (result.code, result.out) == (1, "01B\n")
    assert result.err.splitlines() == ["otp-relay: no message 01Z", "otp-relay: no message 01Y"]
    assert json.loads(run("queue", "release", "01B", "01Z", "--json").out) == {"changed": ["01B"], "unknown": ["01Z"]}


async def make_ambiguous(path: Path, message_id: str) -> None:
    store = await open_store(path, now=time)
    await store.put(message(message_id, accepted_at=time()), claimed=True)
    await store.settle(Settlement(message_id, (RecipientUpdate(0, "ambiguous", "postmark", "no reply"),)))
    await store.close()


@pytest.mark.parametrize("chosen", ["--all", "--lane=otp"])
def test_a_retry_leaves_ambiguous_messages_unless_they_are_named(
    run: Run, config_file: Path, filled: float, chosen: str
) -> None:
    for message_id in ("01E", "01F"):
        asyncio.run(make_ambiguous(config_file.parent / "relay.db", message_id))
    result = run("queue", "retry", chosen)
    assert result.code == 0
    assert "01E" not in result.out
    assert "2 ambiguous left as they are" in result.err
    assert json.loads(run("queue", "retry", chosen, "--json").out)["left"] == 2
    assert [one["id"] for one in run("queue", "--state", "ambiguous", "--json").objects] == ["01E", "01F"]
    assert run("queue", "retry", "01E").out == "01E\n"
    result = run("queue", "retry", chosen, "--ambiguous")
    assert "01F" in result.out
    assert result.err == ""
    assert run("queue", "--state", "ambiguous", "--json").out == ""


@pytest.fixture
def running(config_file: Path, filled: float) -> Iterator[None]:
    """The HTTP service and its store in a thread of their own, as in another process; the store is locked."""
    started, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        store = await open_store(config_file.parent / "relay.db", now=time)
        server = WebServer(make_backend(store, config_file.parent), Tokens(TOKEN))
        address = UnixAddress(f"{config_file.parent}/http.sock")
        await server.start(bind(address, {}))
        started.set()
        await stop.wait()
        await server.stop()
        await store.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10)
    yield
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


@pytest.mark.usefixtures("running")
def test_an_action_beside_a_running_relay_uses_its_http_service(run: Run) -> None:
    assert run("queue", "hold", "--lane", "otp").out == "01B\n"
    assert json.loads(run("queue", "hold", "--all", "--json").out) == {"changed": ["01C", "01D"]}
    assert run("queue", "hold", "01B").code == 1
    assert run("queue", "release", "01B").out == "01B\n"
    result = run("queue", "drop", "01B", "01Z")
    assert (result.code, result.out, result.err) == (1, "01B\n", "otp-relay: no message 01Z\n")
    result = run("queue", "hold", "--lane", "opt")
    assert (result.code, result.out) == (1, "")
    assert result.err == "otp-relay: there is no lane opt; there are otp, bulk\n"
    assert [one["id"] for one in run("log", "--json").objects] == ["01D", "01C", "01B", "01A"]


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("http", "said"),
    [
        ({"address": "unix:http.sock", "token": "another"}, "401 this token isn't known"),
        ({"address": "unix:nowhere.sock", "token": TOKEN}, "in use by another relay"),
        ({"address": "127.0.0.1:1"}, "in use by another relay"),
        ({"address": "systemd:http", "token": TOKEN}, "systemd:http"),
    ],
)
def test_a_running_relay_that_gives_no_answer_is_one_line(
    run: Run, config_file: Path, http: dict[str, str], said: str
) -> None:
    write_config(config_file.parent, {"postmark": {"host": "127.0.0.1", "port": 1, "tls": "none"}}, http=http)
    result = run("queue", "drop", "--all")
    assert (result.code, result.out) == (1, "")
    assert len(result.err.splitlines()) == 1
    assert said in result.err
    assert TOKEN not in result.err
    assert len(run("queue", "--json").objects) == 3


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("http", "place"),
    [
        ("address: unix:http.sock, token: another", "relay.yaml:1:40: http.token"),
        ("address: unix:nowhere.sock, token: another", "relay.yaml:1:17: http.address"),
    ],
)
def test_a_changed_http_section_is_named_as_one_that_needs_a_restart(
    run: Run, config_file: Path, http: str, place: str
) -> None:
    config_file.write_text(f"http: {{{http}}}\nstore: relay.db\n")
    result = run("queue", "drop", "--all")
    assert (result.code, result.out) == (1, "")
    assert len(result.err.splitlines()) == 1
    assert f"({config_file.parent}/{place})" in result.err
    assert "until a restart" in result.err


@pytest.mark.usefixtures("running")
def test_errors_elsewhere_in_the_file_do_not_keep_an_action_from_the_relay(
    run: Run, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_TOKEN", TOKEN)
    config_file.write_text(
        "store: relay.db\nhttp: {address: unix:http.sock, token: '${RELAY_TOKEN}'}\nlanes: {otp: {expires: 10}}\n"
    )
    assert (run("check").code, run("queue", "hold", "--lane", "otp").out) == (2, "01B\n")


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("http", ["1", "{address: nowhere}", "{token: '${UNSET}'}", "{token: 1}"])
def test_an_unreadable_http_section_beside_a_running_relay_is_one_line(run: Run, config_file: Path, http: str) -> None:
    config_file.write_text(f"store: relay.db\nhttp: {http}\n")
    result = run("queue", "drop", "--all")
    assert (result.code, result.out) == (1, "")
    assert len(result.err.splitlines()) == 1
    assert "in use by another relay" in result.err
    assert "relay.yaml:2:" in result.err


@pytest.mark.parametrize("rest", ["lanes: {otp: {expires: 10}}", "http: {address: nowhere}", "no_such_key: 1"])
def test_an_action_on_the_store_needs_only_the_path_of_the_store(
    run: Run, config_file: Path, filled: float, rest: str
) -> None:
    config_file.write_text(f"store: relay.db\n{rest}\n")
    result = run("queue", "hold", "--all")
    assert (result.code, sorted(result.out.split()), result.err) == (0, ["01B", "01C", "01D"], "")


@pytest.mark.parametrize("text", ["store: 1", "store: relay.db\nlog: {addresses: all}", "store: 'relay.db"])
def test_an_error_in_a_needed_key_is_reported(run: Run, config_file: Path, filled: float, text: str) -> None:
    config_file.write_text(text)
    result = run("queue", "hold", "--all")
    assert (result.code, result.out) == (2, "")
    assert f"{config_file}:" in result.err


def test_a_response_that_is_not_http_is_one_line(run: Run, config_file: Path, filled: float) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{config_file.parent}/http.sock")
        listening.listen()
        listening.settimeout(10)

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 mail.example.com ESMTP\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        result = run("queue", "drop", "--all")
        thread.join(10)
    assert (result.code, result.out) == (1, "")
    assert "no proper answer" in result.err


def test_the_report_counts_what_finished(run: Run, filled: float) -> None:
    document = json.loads(run("report", "--json").out)
    assert [(one["lane"], one["recipients"], one["states"]) for one in document["lanes"]] == [
        ("bulk", 1, {"bounced": 1}),
        ("otp", 1, {"sent": 1}),
    ]
    lines = run("report").out.splitlines()
    place = ["LANE", "UPSTREAM", "PROVIDER"]
    assert lines[0].split() == [*place, "COUNT", "P50", "P95", "P99"]
    assert lines[2].split()[:6] == ["otp", "all", "all", "1", "41", "ms"]
    assert lines[4].split() == [*place, "EXCELLENT", "GOOD", "ACCEPTABLE", "POOR", "FAILED"]
    assert lines[6].split() == ["otp", "all", "all", "1", "0", "0", "0", "0"]
    assert lines[9].split() == ["bulk", "all", "all", "0", "-", "-", "-"]
    assert lines[13].split() == ["bulk", "all", "all", "100", "%", *["0", "%"] * 4]
    assert lines[16:19:2] == ["bulk: 1 bounced", "otp: 1 sent"]
    assert max(map(len, lines)) <= 80
    assert run("report", "--since", "1s").out == "nothing finished in that time\n"


@pytest.mark.parametrize(
    ("within", "shown"), [("300s", "5m"), ("90s", "90s"), ("10s", "10s"), ("1.5s", "1500ms"), ("2h", "2h")]
)
def test_an_objective_is_shown_in_the_units_of_a_configuration(
    run: Run, config_file: Path, filled: float, within: str, shown: str
) -> None:
    document = yaml.safe_load(config_file.read_text())
    document["lanes"]["otp"]["objective"] = {"within": within, "share": "95%"}
    config_file.write_text(yaml.safe_dump(document))
    assert f"\notp: objective: 95 % within {shown}: " in run("report").out


def test_a_listing_of_events_that_ends_at_its_limit_says_so(run: Run, filled: float) -> None:
    everything = run("events")
    assert everything.err == ""
    lines = everything.out.splitlines()  # two for each event
    assert max(map(len, lines)) <= 80
    count = len(lines) // 2
    assert count > 3
    assert run("events", "--limit", str(count)).err == ""
    last, first = run("events", "--limit", "2"), run("events", "--since", "1h", "--limit", "2")
    assert (last.code, last.out.splitlines()) == (0, lines[-4:])
    assert last.err == "otp-relay: these are the last 2, there are more: --limit N\n"
    assert (first.code, first.out.splitlines()) == (0, lines[:4])
    assert first.err == "otp-relay: these are the first 2, there are more: --limit N\n"


def test_events_are_followed_without_those_that_there_are(
    run: Run, filled: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time_module, "sleep", interrupt)
    assert run("events", "--follow").out != ""
    assert run("events", "--follow", "--limit", "0") == Result(0, "", "")
    refused = run("events", "--limit", "0")
    assert (refused.code, refused.out) == (2, "")
    assert "limit: expected a number from 1 to" in refused.err


def test_the_report_says_whether_a_lanes_objective_is_met(run: Run, config_file: Path, filled: float) -> None:
    document = yaml.safe_load(config_file.read_text())
    document["lanes"]["otp"]["objective"] = {"within": "30ms", "share": "99.5%"}
    document["lanes"]["bulk"]["objective"] = {"within": "soon", "share": "99.5%"}
    config_file.write_text(yaml.safe_dump(document))
    assert "\notp: objective: 99.5 % within 30ms: 0 % of 1 (missed)\n" in run("report").out
    (otp,) = [lane for lane in json.loads(run("report", "--json").out)["lanes"] if lane["lane"] == "otp"]
    assert otp["objective"] == {
        "within_ms": 30.0, "wanted_share": 0.995, "good": 0, "total": 1, "share": 0.0, "met": False,
    }  # fmt: skip


HINT = "let it write the message in one piece, or set TCP_NODELAY"


def test_log_and_report_say_what_to_change_in_an_app_that_hands_over_slowly(run: Run, config_file: Path) -> None:
    async def slow(path: Path) -> None:
        store = await open_store(path, now=time)
        for message_id, receive_ms in (("01A", 47.1), ("01B", 0.3), ("01C", 51.0), ("01D", 9.9)):
            new = message(message_id, accepted_at=time() - 9)._replace(timings_ms={"receive": receive_ms})
            await store.put(new, claimed=True)
            await store.settle(sent(message_id, accepted_at=time() - 9))
        await store.close()

    asyncio.run(slow(config_file.parent / "relay.db"))
    shown = run("log", "01A").out
    assert "  hint        The app took 47 ms from the 354 to its final dot. " in shown
    assert HINT in " ".join(shown.split())
    assert "  times       receive 47 ms, total 41 ms" in shown
    assert "hint" not in run("log", "01B").out
    report = run("report").out
    advised = "otp: for 2 of 4 (50 %) the app took more than 10 ms from the 354 to its final dot."
    assert advised in " ".join(report.split())
    assert HINT in " ".join(report.split())
    (lane,) = json.loads(run("report", "--json").out)["lanes"]
    assert lane["slow_receive"] == 2


def test_the_text_report_stays_readable_with_many_providers() -> None:
    rows = [DeliveryRow("bulk", "ses", f"d{n}.example", "sent", 10.0) for n in range(100)]
    text = report_text.report(build(rows).as_json())
    assert text.splitlines()[-1] == "and 80 more; --json has them all"


def test_a_table_is_aligned_and_shows_no_control_characters() -> None:
    text = table(("A", "LONG", "N"), [("a\x1b[2J", "b", "7"), ("é", "\n", "1000")], frozenset({"N"}))
    assert text == "A      LONG     N\na�[2J  b        7\né      �     1000"


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (None, "-"),
        (0.04, "0.0 ms"),
        (9.94, "9.9 ms"),
        (41.2, "41 ms"),
        (2000, "2.0 s"),
        (300_000, "5 min"),
        (7_200_000, "2.0 h"),
        (172_800_000, "2.0 d"),
    ],
)
def test_a_duration_is_shown_in_the_unit_that_fits(ms: float | None, shown: str) -> None:
    assert duration(ms) == shown
