"""The relay as a contender: the real one, `python -m relay run`, over a configuration written for the measurement."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from bench.contender import SELECTOR, WEBHOOK_SECRET, Contender, Site, Upstream
from bench.process import ROOT, Child, Failed
from bench.sink import PASSWORD, USERNAME

READY_WITHIN_S = 60.0
"""a store of ten million rows included"""
_READY = re.compile(r"^ready smtp=127\.0\.0\.1:(\d+) http=127\.0\.0\.1:(\d+)$", re.MULTILINE)
_BULK_SESSIONS = {"max": 10}
_LIMITS = {
    "per_recipient": ["50000/1h", "100000/1d"],
    "per_client": ["50000/1h", "100000/1d"],
    "per_sender": ["50000/1h", "100000/1d"],
    "resend_after": ["1ms", "2ms"],
    "fold_tags": True,
}


class Relay(Contender):
    name = "relay"

    def __init__(self, site: Site, checkout: Path | None = None) -> None:
        """`checkout`: of another version, with its `.venv`."""
        self._site = site
        self._folder = checkout or ROOT
        self._python = sys.executable if checkout is None else str(checkout / ".venv/bin/python")
        self.port = self.http_port = 0
        self.ready_after_s = 0.0
        self._child: Child | None = None

    @property
    def roots(self) -> Sequence[int]:
        return [self._child.pid] if self._child is not None else []

    def __enter__(self) -> Self:
        config = self._site.directory / "relay.yaml"
        config.write_text(yaml.safe_dump(configuration(self._site), sort_keys=False))
        log = self._site.directory / "relay.log"
        log.unlink(missing_ok=True)
        began = time.monotonic()
        self._child = Child([self._python, "-m", "relay", "run", "-c", str(config)], log, folder=self._folder)
        try:
            self.port, self.http_port = self._await_ready(self._child, began + READY_WITHIN_S)
        except BaseException:
            self._child.end()
            raise
        self.ready_after_s = time.monotonic() - began
        return self

    def _await_ready(self, child: Child, deadline: float) -> tuple[int, int]:
        while time.monotonic() < deadline:
            found = _READY.search(child.log.read_text(errors="replace"))
            if found:
                return int(found[1]), int(found[2])
            if not child.running:
                raise Failed(f"the relay ended before it was ready\n{child.last_words}")
            time.sleep(0.005)
        raise Failed(f"the relay was not ready within {READY_WITHIN_S:.0f} s\n{child.last_words}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.end()


def configuration(site: Site) -> dict[str, Any]:
    """relay.yaml: a lane for codes, one for the rest, and one for what is to lie still."""
    upstreams = {f"otp{n}": _upstream(one, site.sessions) for n, one in enumerate(site.otp, 1)}
    lanes: dict[str, Any] = {
        "otp": {"upstreams": list(upstreams)} | ({"hedge": site.hedge} if site.hedge else {}),
        "bulk": {"upstreams": ["bulk"]},
    }
    upstreams["bulk"] = _upstream(site.bulk, _BULK_SESSIONS)
    if site.parked is not None:
        upstreams["parked"] = _upstream(site.parked, {"max": 2})
        lanes["parked"] = {"upstreams": ["parked"], "retry": ["4h"], "expires": "2d"}
    if site.is_limited:
        for lane in lanes.values():
            lane["limits"] = deepcopy(_LIMITS)
    more: dict[str, Any] = {}
    if site.webhooks_port is not None:
        upstreams["bulk"]["webhook"] = {"kind": "postmark", "secret": WEBHOOK_SECRET}
        more["webhooks"] = {"address": f"127.0.0.1:{site.webhooks_port}"}
    return {
        "listen": [{"address": "127.0.0.1:0"}],
        "http": {"address": "127.0.0.1:0"},
        "store": "relay.db",
        "hostname": "relay.example.com",
        "upstreams": upstreams,
        "lanes": lanes,
        "rules": [
            {"name": lane, "match": _match(lane, by_content=site.by_content), "lane": lane}
            for lane in lanes
            if lane != "bulk"
        ],
        "default_lane": "bulk",
        "dkim": [{"domain": site.domain, "keys": [{"selector": SELECTOR, "key_file": str(site.key_file)}]}],
        "limits": {"message_size": "50MB"},
        "shutdown": "1s",
        **more,
    }


def _match(lane: str, *, by_content: bool) -> dict[str, Any]:
    return {"content": "otp"} if by_content and lane == "otp" else {"header": {"X-Relay-Lane": lane}}


def _api(one: Upstream, sessions: Mapping[str, int]) -> dict[str, Any]:
    access = {"kind": one.api, "url": f"https://localhost:{one.port}"}
    proof = {"region": "eu-west-1", "access_key_id": "AKIABENCH", "secret_access_key": PASSWORD}
    return {
        "via": "api",
        "api": access | (proof if one.api == "ses" else {"key": PASSWORD}),
        "ca_file": str(one.ca_file),
        "sessions": dict(sessions),
    }


def _upstream(one: Upstream, sessions: Mapping[str, int]) -> dict[str, Any]:
    if one.api is not None:
        return _api(one, sessions)
    found: dict[str, Any] = {"host": "127.0.0.1", "port": one.port, "tls": "none", "sessions": dict(sessions)}
    if one.ca_file is not None:
        found |= {"tls": "starttls", "ca_file": str(one.ca_file)}
    if one.auth:
        found |= {"username": USERNAME, "password": PASSWORD}
    return found
