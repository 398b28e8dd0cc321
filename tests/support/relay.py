"""The real relay as a process, with a configuration that names test upstreams, and ways to ask it.

config_file = write_config(tmp_path, {"fast": upstream})
async with RelayProcess(config_file) as relay:
    host, port = relay.smtp
    assert (await get(relay, "/healthz")).status == 200
    assert (await command("log", "-c", config_file, "--json")).code == 0
    await relay.kill()
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from relay.demo.process import RelayFailed, RelayProcess
from tests.support.tls import Certificates
from tests.support.upstream import Upstream

__all__ = [
    "Answer", "RelayFailed", "RelayProcess", "Said", "command", "get", "metrics", "post", "time_line", "until",
    "upstream_keys", "write_config",
]  # fmt: skip

ANSWER_WITHIN_S = 20.0


class _NoAliases(yaml.SafeDumper):
    """The relay takes no aliases, which PyYAML writes for an object that stands in two places."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def upstream_keys(upstream: Upstream, certificates: Certificates | None = None, **keys: object) -> dict[str, object]:
    """How the configuration names a test upstream; `keys` add to that or replace it."""
    found: dict[str, object] = {"host": upstream.host, "port": upstream.port, "tls": upstream.tls or "none"}
    if upstream.tls is not None and certificates is not None:
        found["ca_file"] = str(certificates.ca_file)
    if upstream.auth:
        found["username"], found["password"] = next(iter(upstream.auth.items()))
    return {**found, **keys}


def write_config(directory: Path, upstreams: Mapping[str, Upstream | Mapping[str, object]], **keys: object) -> Path:
    """`relay.yaml` below `directory`: ephemeral ports, lanes `otp` (mail from auth.example.com) and `bulk` over all the
    upstreams in their order. `keys` replace whole top-level keys of the file."""
    named = list(upstreams)
    config: dict[str, Any] = {
        "listen": [{"address": "127.0.0.1:0"}],
        "http": {"address": "127.0.0.1:0"},
        "store": "relay.db",
        "hostname": "relay.example.com",
        "upstreams": {
            name: upstream_keys(one) if isinstance(one, Upstream) else dict(one) for name, one in upstreams.items()
        },
        "lanes": {
            "otp": {"upstreams": named, "retry": ["200ms", "1s", "3s"], "expires": "10m"},
            "bulk": {"upstreams": named, "retry": ["1s", "5s"], "expires": "2d"},
        },
        "rules": [{"name": "auth-sender", "match": {"sender": "*@auth.example.com"}, "lane": "otp"}],
        "default_lane": "bulk",
        "shutdown": "5s",
        **keys,
    }
    path = directory / "relay.yaml"
    path.write_text(yaml.dump(config, Dumper=_NoAliases, sort_keys=False))
    return path


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def objects(self) -> list[Any]:
        """One JSON value a line."""
        return [json.loads(line) for line in self.out.splitlines()]


async def command(
    *arguments: str | Path, given: bytes = b"", environment: Mapping[str, str] | None = None, within_s: float = 30.0
) -> Said:
    """`python -m relay ARGUMENTS` as a program of its own; `given` is its stdin."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(given), within_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def document(self) -> Any:
        return json.loads(self.body)


async def get(relay: RelayProcess, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
    return await _ask(relay, "GET", path, None, headers)


async def post(relay: RelayProcess, path: str, body: object, *, headers: Mapping[str, str] | None = None) -> Answer:
    return await _ask(relay, "POST", path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})


async def _ask(
    relay: RelayProcess, method: str, path: str, body: str | None, headers: Mapping[str, str] | None
) -> Answer:
    timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
    url = f"http://{relay.http_address}{path}"
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request(method, url, data=body, headers=headers) as answer,
    ):
        return Answer(
            answer.status, {name.lower(): value for name, value in answer.headers.items()}, await answer.text()
        )


class Samples(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """The samples of one scrape."""

    def value(self, name: str, **labels: str) -> float:
        """Of one series, 0 where there is none."""
        return self.get((name, frozenset(labels.items())), 0.0)

    def labels(self, name: str) -> list[dict[str, str]]:
        """Of every series with that name."""
        return [dict(labels) for found, labels in self if found == name]


async def metrics(relay: RelayProcess) -> Samples:
    text = (await get(relay, "/metrics")).body
    return Samples(
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = 15.0, every_s: float = 0.03) -> None:
    """Ask until it holds; AssertionError when it doesn't in time."""
    ends = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < ends, f"does not hold within {within_s} s"
        await asyncio.sleep(every_s)


async def until_logged(relay: RelayProcess, text: str) -> str:
    """Wait for a line with the text in the relay's log, which may come later than the effect that it is about."""
    found: list[str] = []

    async def logged() -> bool:
        found[:] = [line for line in relay.stderr.splitlines() if text in line]
        return bool(found)

    await until(logged)
    return found[0]


async def time_line(relay: RelayProcess, message_id: str, *states: str, within_s: float = 15.0) -> Any:
    """The message as the API has it, once every recipient is in one of `states`."""
    found: Any = None

    async def reached() -> bool:
        nonlocal found
        answer = await get(relay, f"/api/messages/{message_id}")
        found = answer.document
        return answer.status == 200 and all(one["state"] in states for one in found["recipients"])

    try:
        await until(reached, within_s)
    except AssertionError:
        raise AssertionError(f"not {states} within {within_s} s: {found}") from None
    return found
