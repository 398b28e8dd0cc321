"""The mailbox provider behind a domain of its own, by its MX records, in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.feedback import messages, mx
from relay.feedback.mx import ABSENT_FOR_S, FAILED_FOR_S, FOUND_FOR_S, Found, MxLookups, resolve_with
from relay.mail.mailbox_provider import KNOWN_PROVIDERS, MOST_LEARNT, Providers, provider_of_mx
from relay.store.sqlite.events_file import open_events
from relay.store.sqlite.events_reader import mx_providers
from relay.store.sqlite.events_schema import events_path
from tests.doctor.nameserver import NameServer

NOW = 1_800_000_000.0
HOSTS = {
    "aspmx.l.google.com": "gmail",
    "alt1.aspmx.l.google.com.": "gmail",
    "smtp.google.com": "gmail",
    "example-org.mail.protection.outlook.com": "outlook",
    "mta5.am0.yahoodns.net": "yahoo",
    "mx-aol.mail.gm0.yahoodns.net": "aol",
    "mx01.mail.icloud.com": "icloud",
    "in1-smtp.messagingengine.com": "fastmail",
    "mail.protonmail.ch": "proton",
    "mx.zoho.eu": "zoho",
    "mx.yandex.net": "yandex",
    "emx.mail.ru": "mailru",
    "mxbiz1.qq.com": "qq",
    "hzmx01.mxmail.netease.com": "netease",
    "mx00.gmx.net": "gmx",
    "mx-ha02.web.de": "webde",
    "mx1.naver.com": "naver",
    "mx.example.org": None,
    "notgoogle.com": None,
    "google.com.example": None,
}


@pytest.mark.parametrize("host", HOSTS)
def test_an_mx_host_tells_the_provider(host: str) -> None:
    assert provider_of_mx(host) == HOSTS[host]


def test_every_provider_can_be_told_by_mx() -> None:
    assert {name for name in HOSTS.values() if name is not None} == KNOWN_PROVIDERS


def test_what_was_learnt_is_bounded_and_the_table_comes_first() -> None:
    providers = Providers()
    providers.learn("gmx.de", "gmail")
    for number in range(MOST_LEARNT):
        providers.learn(f"d{number}.example", "outlook")
    assert [providers.of(f"a@{name}") for name in ("gmx.de", "D1.example", "none.example")] == [
        "gmx", "outlook", "none.example",
    ]  # fmt: skip
    providers.learn("one-more.example", "gmail")
    assert [providers.of(f"a@{name}") for name in ("d0.example", "one-more.example")] == ["d0.example", "gmail"]


ANSWERS = [
    ("firm.org", ("gmail", FOUND_FOR_S)),
    ("own.org", (None, ABSENT_FOR_S)),
    ("without.org", (None, ABSENT_FOR_S)),
    ("nowhere.org", (None, ABSENT_FOR_S)),
    ("broken.org", (None, FAILED_FOR_S)),
    ("silent.org", (None, FAILED_FOR_S)),
    ("a" * 70 + ".org", (None, FAILED_FOR_S)),
]


@pytest.mark.parametrize(("domain", "found"), ANSWERS)
async def test_a_look_up_ends_within_its_time_whatever_comes(domain: str, found: tuple[str | None, float]) -> None:
    zone = {"firm.org": "", "own.org": "", "without.org": "", "broken.org": "SERVFAIL", "silent.org": "SILENT"}
    exchanges = {"firm.org": ["5 backup.firm.org.", "1 ASPMX.L.Google.COM."], "own.org": ["10 mx.own.org."]}
    async with NameServer(zone, exchanges) as server:
        assert await resolve_with(server.address, within_s=0.3)(domain) == found


class Lookups:
    """Look-ups that are answered from a table."""

    def __init__(self, answers: Mapping[str, str | None], known: Mapping[str, Found] | None = None) -> None:
        self.asked: list[str] = []
        self.found: list[tuple[str, str]] = []
        self.saved: dict[str, Found] = {}
        self.now = NOW
        self._answers = answers
        self._done = asyncio.Event()
        self.made = MxLookups(known or {}, self._resolve, self._save, self._on_found, lambda: self.now)

    async def _resolve(self, domain: str) -> tuple[str | None, float]:
        self.asked.append(domain)
        return self._answers.get(domain), FOUND_FOR_S

    async def _save(self, domain: str, found: Found) -> None:
        self.saved[domain] = found
        self._done.set()

    def _on_found(self, domain: str, provider: str) -> None:
        self.found.append((domain, provider))

    async def until_saved(self, domains: Sequence[str]) -> None:
        async with asyncio.timeout(10):
            while not set(domains) <= set(self.saved):
                self._done.clear()
                await self._done.wait()


@asynccontextmanager
async def running(lookups: Lookups) -> AsyncIterator[None]:
    task = asyncio.create_task(lookups.made.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_domain_is_looked_up_once_and_known_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "PER_SECOND", 1000.0)
    lookups = Lookups({"firm.org": "gmail"}, {"old.org": Found("outlook", NOW - 1), "fresh.org": Found(None, NOW + 1)})
    ask = lookups.made.provider
    async with running(lookups):
        for name in ("firm.org", "firm.org", "gmail", "own.org", "fresh.org", "firm.test", "[::1]"):
            assert ask(name) == name
        assert ask("old.org") == "outlook"  # it is still of use while it is looked up again
        await lookups.until_saved(["firm.org", "own.org", "old.org"])
        assert [ask("firm.org"), ask("own.org")] == ["gmail", "own.org"]
        lookups.saved.clear()
        lookups.now += FOUND_FOR_S
        assert ask("firm.org") == "gmail"
        await lookups.until_saved(["firm.org"])
    assert lookups.asked == ["firm.org", "own.org", "old.org", "firm.org"]
    assert lookups.found == [("firm.org", "gmail")] * 2
    assert lookups.saved["firm.org"] == Found("gmail", NOW + 2 * FOUND_FOR_S)


async def test_what_was_found_is_there_after_a_restart(tmp_path: Path) -> None:
    path = events_path(tmp_path / "relay.db")
    assert mx_providers(path, 10) == {}
    for again in (False, True):
        events = await open_events(path, lambda: NOW)
        if not again:
            await events.save_mx("firm.org", None, NOW - 9)
            await events.save_mx("firm.org", "gmail", NOW + 9)
            await events.save_mx("own.org", None, NOW + 9)
            await events.save_mx("long-ago.org", "gmail", NOW - 99 * 86400)
            await events.prune(NOW, 10)
        assert await events.mx_providers(10) == {"firm.org": ("gmail", NOW + 9), "own.org": (None, NOW + 9)}
        await events.close()
    assert mx_providers(path, 10) == {"firm.org": "gmail"}


@pytest.mark.parametrize("given", [None, [], ["firm.org"], ["firm.org", "evil"], ["a" * 256, "gmail"], [1, "gmail"]])
def test_the_main_process_believes_known_names_only(given: object) -> None:
    assert messages.read_provider(["firm.org", "gmail"]) == ("firm.org", "gmail")
    with pytest.raises(ValueError, match="no domain"):
        messages.read_provider(given)
