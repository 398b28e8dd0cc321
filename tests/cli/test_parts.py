"""What the commands say of a message whose recipients take different routes."""

from __future__ import annotations

from pathlib import Path

from relay.cli import mail_text
from tests.support.relay import Said, command, write_config

NOWHERE = {"host": "127.0.0.1", "port": 1, "tls": "none"}
USER, LIST = "ann@users.example.net", "all@list.example.com"
LETTER = f"From: app@example.com\r\nTo: {LIST}, {USER}\r\nSubject: hi\r\n\r\nhello\r\n".encode()


def configured(folder: Path, **limits: object) -> Path:
    lanes = {
        "otp": {"upstreams": ["codes"], "expires": "10m", "limits": limits},
        "bulk": {"upstreams": ["bulk", "codes"], "expires": "2d"},
    }
    rules = [{"name": "users", "match": {"recipient": "*@users.example.net"}, "lane": "otp"}]
    return write_config(folder, {"codes": NOWHERE, "bulk": NOWHERE}, lanes=lanes, rules=rules)


async def explain(config: Path, *arguments: str) -> Said:
    return await command("explain", "-", "-c", config, *arguments, given=LETTER)


async def test_explain_shows_each_part_with_its_route_and_the_entry_first(tmp_path: Path) -> None:
    config = configured(tmp_path)
    document = (await explain(config, "--json")).document
    assert (document["lane"], document["rule"], document["recipients"]) == ("otp", "users", [LIST, USER])
    users, lists = document["parts"]
    assert (users["lane"], users["rule"], users["recipients"], users["upstreams"]) == (
        "otp",
        "users",
        [USER],
        ["codes"],
    )
    assert (lists["lane"], lists["rule"], lists["recipients"]) == ("bulk", None, [LIST])
    assert (users["earlier"], users["upstreams"]) == ([], ["codes"])
    assert (lists["upstreams"], lists["expires_ms"]) == (["bulk", "codes"], 172_800_000)
    assert lists["earlier"] == [
        {"rule": "users", "why_not": [f"recipient: {LIST} isn't *@users.example.net"]},
    ]
    text = (await explain(config)).out
    assert "lane       otp (rule users)" in text
    assert f"part       otp (rule users): {USER}; by codes; expires 10m after the final dot" in text
    assert f"part       bulk (no rule matched): {LIST}; by bulk, codes; expires 2d after the final dot" in text


async def test_explain_has_no_parts_where_all_recipients_take_one_route(tmp_path: Path) -> None:
    config = configured(tmp_path)
    document = (await explain(config, "--json", "--to", USER, "--to", "bob@users.example.net")).document
    assert (document["lane"], document["parts"]) == ("otp", None)
    assert (await explain(config, "--json", "--lane", "bulk")).document["parts"] is None
    assert "part  " not in (await explain(config, "--to", USER)).out


async def test_explain_says_once_that_a_part_would_be_refused(tmp_path: Path) -> None:
    both = ("--to", USER, "--to", USER, "--to", LIST, "--json")
    document = (await explain(configured(tmp_path, per_recipient="1/1h"), *both)).document
    assert document["refused"] == document["parts"][0]["refused"]
    assert "per_recipient" in document["refused"][0]


def test_the_time_line_says_of_each_recipient_which_part_it_is_in() -> None:
    times = {"expires_at": "2027-01-15T08:10:00.000Z", "sent_at": None, "delivered_at": None}
    shared = {"upstream": None, "reply": None, **times}
    line = {
        "id": "01A", "lane": "otp", "rule": "users", "sender": "", "client": "local", "subject": "hi",
        "message_id": "<1@x>", "size": 5, "signed": [], "accepted_at": "a", "expires_at": "b", "timings_ms": {},
        "content": None, "recipients": [
            {"address": LIST, "state": "queued", "lane": "bulk", "rule": None, "part": "01B", **shared},
            {"address": USER, "state": "queued", "lane": "otp", "rule": "users", "part": "01A", **shared},
        ],
    }  # fmt: skip
    text = mail_text.message(line)
    words = " ".join(text.split())
    assert f"to {LIST}: queued [bulk (default lane), part 01B, expires 2027-01-15T08:10:00.000Z]" in words
    assert f"to {USER}: queued [otp (rule users), part 01A, expires 2027-01-15T08:10:00.000Z]" in words
    assert mail_text.messages([line]).splitlines()[0] == f"01A  2 queued    {LIST} (+1)"
    assert mail_text.messages([line]).splitlines()[1] == "  a  bulk, otp  hi"
    assert mail_text.queue([line], 1_800_000_000.0).splitlines()[1] == "  bulk, otp  expires in 10 min"
