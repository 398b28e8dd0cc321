"""The console's script, run by a JavaScript engine on a minimal page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import pytest

from relay.observe.bands import tally

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node to run the console's script")

PAGE = """
const made = () => ({
  children: [], append(...more) { this.children.push(...more); }, replaceChildren(...more) { this.children = more; },
  setAttribute(name, value) { this[name] = value; },
});
const byId = {};
const document = {
  createElement: made, createElementNS: made, getElementById: (id) => (byId[id] ||= made()), hidden: false,
};
const answers = %s;
const fetch = async (path) => {
  const answer = answers[path.split("?")[0]];
  return { ok: answer.status === 200, status: answer.status, json: async () => answer.document };
};
const setTimeout = () => {
  const text = (node) =>
    [node.textContent || "", node.title || "", ...(node.children || []).map(text)].join(" ").trim();
  const rects = (node) => (node.class && node.width !== undefined ? [[node.class, node.width]] : [])
    .concat(...(node.children || []).map(rects));
  console.log(JSON.stringify({
    status: byId.status.textContent, good: byId.status.className, text: text(byId.lanes || made()),
    rects: Object.fromEntries(rects(byId.lanes || made())), rows: text(byId.messages || made()),
    hint: byId.hint && byId.hint.textContent,
  }));
};
"""


def shown(live: object, status: int = 200, messages: Sequence[object] = (), zone: str = "UTC") -> Any:
    """The page's content after one refresh."""
    answers = {
        "/api/live": {"status": status, "document": live},
        "/api/messages": {"status": status, "document": [*messages] if status == 200 else live},
    }
    script = PAGE % json.dumps(answers) + files("relay.web").joinpath("static", "console.js").read_text()
    assert NODE is not None
    done = subprocess.run(
        [NODE, "-e", script], capture_output=True, text=True, timeout=30, check=True, env={"TZ": zone}
    )
    return json.loads(done.stdout)


def live(sent: int, failed: int, states: dict[str, str]) -> dict[str, object]:
    lane: dict[str, object] = {
        "sent": sent, "failed": failed, "p50_ms": None, "p95_ms": None, "max_ms": None, "latest_ms": [], "queue": {},
        "bands": {**tally([1.0] * sent), "failed": failed},
        "upstreams": {name: {"state": state} for name, state in states.items()},
    }  # fmt: skip
    return {"reasons": [], "window_ms": 300_000, "lanes": {"otp": lane}}


@pytest.mark.parametrize(("zone", "time"), [("UTC", r"10:30:00\sPM UTC"), ("Asia/Kolkata", r"4:00:00\sAM GMT\+5:30")])
def test_times_carry_their_zone(zone: str, time: str) -> None:
    message = {
        "accepted_at": "2026-01-31T22:30:00.000Z", "lane": "otp", "subject": "Your code", "timings_ms": {},
        "recipients": [{"address": "user@example.net", "state": "sent", "upstream": "ses"}],
    }  # fmt: skip
    rows = shown(live(1, 0, {"ses": "up"}), messages=[message], zone=zone)["rows"]
    assert re.search(time, rows)
    assert "2026-01-31T22:30:00.000Z" in rows


def test_a_message_that_the_app_handed_over_slowly_shows_that_and_what_to_change() -> None:
    slow = {
        "accepted_at": "2026-01-31T22:30:00.000Z", "lane": "otp", "subject": "Your code",
        "timings_ms": {"receive": 47.1, "total": 22.0}, "hint": "The app took 47 ms: one piece!", "recipients": [],
    }  # fmt: skip
    quick = {**slow, "timings_ms": {"receive": 0.3, "total": 22.0}, "hint": None}
    page = shown(live(1, 0, {}), messages=[quick, slow])
    assert page["rows"].count("app 47 ms") == 1
    assert page["hint"] == "The app took 47 ms: one piece!"
    page = shown(live(1, 0, {}), messages=[quick])
    assert "app" not in page["rows"]
    assert page["hint"] == ""


def test_codes_that_did_not_arrive_have_their_share_of_the_bar() -> None:
    page = shown(live(6, 2, {"ses": "up"}))
    assert page["rects"]["excellent"] == 75
    assert page["rects"]["failed"] == 25
    assert "2 never arrived" in page["text"]
    assert shown(live(0, 3, {"ses": "up"}))["rects"]["failed"] == 100


@pytest.mark.parametrize(
    ("states", "good"),
    [
        ({"ses": "up"}, True),
        ({"ses": "untried"}, True),
        ({"ses": "down", "postmark": "up"}, True),
        ({"ses": "down"}, False),
        ({"ses": "down", "postmark": "half-open"}, False),
    ],
)
def test_the_head_is_not_green_while_a_whole_lane_is_down(states: dict[str, str], good: bool) -> None:
    page = shown(live(0, 0, states))
    assert page["good"] == ("ok" if good else "bad")
    assert page["status"] == ("accepts mail" if good else "accepts mail, but no upstream of otp is up")


def test_an_upstreams_reply_follows_its_reason_and_a_refusal_shows_its_text() -> None:
    document = live(0, 0, {})
    lanes: Any = document["lanes"]
    lanes["otp"]["upstreams"] = {"ses": {"state": "down", "reason": "auth: 535 5.7.8", "words": "bad credentials"}}
    assert "auth: 535 5.7.8: bad credentials" in shown(document)["text"]
    lanes["otp"]["upstreams"]["postmark"] = {"state": "up", "warm": {"sessions": 3, "reason": "auto: bursts"}}
    assert "3 warm: auto: bursts" in shown(document)["text"]
    page = shown({"error": "for root and the relay's own user only"}, 401)
    assert "for root and the relay's own user only" in page["status"]
    assert page["good"] == "bad"
