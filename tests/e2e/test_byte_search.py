"""No file beside the store holds a byte of a code: of mail that waits, that is finished, or that is coming in."""

from __future__ import annotations

import base64
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.app import BULK, OTP, Talk, letter
from tests.support.relay import RelayProcess, get, post, until, until_logged, write_config
from tests.support.script import Script
from tests.support.spool import have_come_in
from tests.support.upstream import Upstream

FORMS = ("plain", "8bit", "base64", "large")
STATES = {"user": "sent", "later": "deferred", "bounce": "bounced"}
EXPECTED = Counter({(sender, state): len(FORMS) for sender in (OTP, BULK) for state in STATES.values()})
EXPECTED["", "deferred"] = 2 * len(FORMS)
"""recipients by their message's sender and their state; the notices of what bounced wait, too"""
_codes = random.Random(9)


@dataclass(frozen=True)
class Letter:
    """A message with a code like no other, and the bytes that must be in no file."""

    code: str
    content: bytes
    needles: tuple[bytes, ...]
    mail: str = ""


def coded(form: str, sender: str) -> Letter:
    code = str(_codes.randrange(10**9, 10**10))
    text, extra, needles, mail = f"Your code is {code}.", "", [code.encode()], "RET=FULL"
    match form:
        case "8bit":
            text, extra = f"Ihr Code für die Anmeldung: {code}.", "Content-Transfer-Encoding: 8bit\r\n"
            mail += " BODY=8BITMIME"
        case "base64":
            text = base64.b64encode(text.encode()).decode()
            extra = "Content-Transfer-Encoding: base64\r\n"
            needles.append(text.encode()[:60])
        case "large":
            text = f"{text}\r\n" * 20_000
    return Letter(code, letter(text, sender=sender, subject=f"{code} is your code", extra=extra), tuple(needles), mail)


def every_letter() -> Iterator[tuple[str, str, Letter]]:
    for sender in (OTP, BULK):
        for to in STATES:
            for form in FORMS:
                yield sender, to, coded(form, sender)


def holding(folder: Path, needles: list[bytes]) -> dict[str, list[bytes]]:
    """The files below the folder that hold one of these, and which."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".yaml":
            content = path.read_bytes()
            if inside := [needle for needle in needles if needle in content]:
                found[path.name] = inside
    return found


SCRIPT: Script = {
    "rcpt": {
        "later@*": "451 4.7.1 greylisted",
        "bounce@*": "550 5.2.1 mailbox disabled",
        # where the notices of what bounced go to
        OTP: "451 4.2.0 later",
        BULK: "451 4.2.0 later",
    },
}


@pytest.mark.fresh
async def test_no_file_holds_a_code_while_mail_waits_after_a_kill_and_after_a_drain(tmp_path: Path) -> None:
    sent = list(every_letter())
    needles = [needle for _, _, one in sent for needle in one.needles]
    dropped = next(one.code for _, to, one in sent if to == "later")
    ids: dict[str, str] = {}
    lane = {"upstreams": ["up"], "retry": ["300ms"], "expires": "50m"}
    lanes = {"otp": lane, "bulk": {**lane, "express": False}}
    async with Upstream(script=SCRIPT) as upstream:
        config = write_config(tmp_path, {"up": upstream}, lanes=lanes, workers=1)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            await until_logged(relay, "event=worker_ready")
            for sender, to, one in sent:
                ids[one.code] = await app.submit(one.content, sender, f"{to}@example.net", mail=one.mail)
            coming = coded("large", BULK)
            needles += coming.needles
            await app.envelope(BULK, "user@example.net")
            app.send(coming.content)

            async def comes_in() -> bool:
                return have_come_in(tmp_path / "relay-spool", len(coming.content))

            async def every_outcome_is_there() -> bool:
                listed = (await get(relay, "/api/messages?limit=100")).document
                states = Counter((one["sender"], one["recipients"][0]["state"]) for one in listed)
                return bool(states == EXPECTED)

            await until(comes_in)
            await until(every_outcome_is_there)
            held = await post(relay, "/api/queue/drop", {"ids": [ids[dropped]]})
            assert held.document["changed"] == [ids[dropped]]
            # The search sees the files that it is about: they hold what is no secret.
            assert holding(tmp_path, [OTP.encode()]).keys() >= {"relay.db-wal"}
            assert holding(tmp_path, [BULK.encode()]).keys() >= {"relay-bulk1.db-wal"}
            assert holding(tmp_path, needles) == {}
            await relay.kill()
        assert holding(tmp_path, needles) == {}

        upstream.set_script({})
        async with RelayProcess(config) as relay:

            async def is_empty() -> bool:
                return not (await get(relay, "/api/queue")).document["lanes"]

            await until(is_empty, 30)
            assert holding(tmp_path, needles) == {}
            assert await relay.terminate() == 0
        assert holding(tmp_path, needles) == {}
    arrived = b"".join(one.content for one in upstream.messages)
    assert {one.code for _, to, one in sent if to != "bounce" and one.code.encode() not in arrived} == {dropped}
    assert sum("FROM:<>" in one.mail_from for one in upstream.messages) == 2 * len(FORMS)
