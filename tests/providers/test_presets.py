"""What the presets fill, what is known of their providers, and that the page about them says the same."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from relay.config.model import Sessions, Upstream
from relay.config.parse import parse_rate
from relay.providers.apis.registry import NAMES
from relay.providers.base import Facts, Preset, Provider
from relay.providers.registry import PROVIDERS, find_preset, presets, provider_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/providers.md").read_text()
PRESETS = [pytest.param(provider, preset, id=name) for name, provider, preset in presets()]
REGIONAL = "ses-eu-west-1"

SERVERS = [
    ("sparkpost-eu", "smtp.eu.sparkpostmail.com", 587, "starttls"),
    ("leadpush", "smtp.leadpush.net", 587, "starttls"),
    ("microsoft365", "smtp.office365.com", 587, "starttls"),
    ("google", "smtp.gmail.com", 465, "implicit"),
    ("cloudflare", "smtp.mx.cloudflare.net", 465, "implicit"),
    ("mailersend", "smtp.mailersend.net", 587, "starttls"),
    ("mailtrap", "live.smtp.mailtrap.io", 587, "starttls"),
    ("mailtrap-bulk", "bulk.smtp.mailtrap.io", 587, "starttls"),
    ("smtp2go", "mail.smtp2go.com", 465, "implicit"),
]
RATES = {"resend": "5/s", "azure": "30/m", "microsoft365": "30/m", "smtp2go": "200000/h"}
ALTERNATIVES = [
    ("postmark", 2525), ("sendgrid", 2525), ("sendgrid-eu", 2525), ("mailgun", 2525), ("mailgun-eu", 2525),
    ("brevo", 2525), ("sparkpost", 2525), ("mailjet", 2525), ("mandrill", 2525), ("smtp2go", 2525),
    ("ses", 2587), (REGIONAL, 2587), ("resend", 2587), ("scaleway", 2587),
]  # fmt: skip
APIS = {
    "postmark": "postmark", "sendgrid": "sendgrid", "ses": "ses", "resend": "resend", "mailgun": "mailgun",
    "brevo": "brevo", "sparkpost": "sparkpost", "mailjet": "mailjet", "mandrill": "mandrill",
    "scaleway": "scaleway", "leadpush": "leadpush", "microsoft365": "graph",
}  # fmt: skip
API_URLS = {
    "sendgrid-eu": "https://api.eu.sendgrid.com",
    "mailgun-eu": "https://api.eu.mailgun.net",
    "sparkpost-eu": "https://api.eu.sparkpost.com",
}


def preset_named(name: str) -> Preset:
    preset = find_preset(name)
    assert preset is not None
    return preset


def keys_of(section: type[Any]) -> set[str]:
    return {field.alias or name for name, field in section.model_fields.items()}


@pytest.mark.parametrize(("name", "host", "port", "tls"), SERVERS)
def test_a_preset_names_the_providers_server(name: str, host: str, port: int, tls: str) -> None:
    keys = preset_named(name).keys
    assert (keys["host"], keys["port"], keys["tls"]) == (host, port, tls)


@pytest.mark.parametrize(("provider", "preset"), PRESETS)
def test_a_preset_fills_keys_of_an_upstream_and_none_that_it_needs(provider: Provider, preset: Preset) -> None:
    assert set(preset.keys) | set(preset.needs) | set(preset.sample) <= keys_of(Upstream)
    assert set(preset.keys.get("sessions", {})) <= keys_of(Sessions)
    assert not set(preset.keys) & (set(preset.needs) | set(preset.sample))
    has_user = preset.username_is_password or "username" in preset.keys or "username" in preset.needs
    assert has_user
    assert "host" in preset.keys or "host" in preset.needs


@pytest.mark.parametrize(("provider", "preset"), PRESETS)
def test_no_port_of_a_preset_is_without_tls_or_named_twice(provider: Provider, preset: Preset) -> None:
    ports = [(preset.keys["port"], preset.keys["tls"]), *preset.other_ports]
    assert {tls for _, tls in ports} <= {"implicit", "starttls"}
    assert len({port for port, _ in ports}) == len(ports)
    assert all(0 < port < 65536 for port, _ in ports)
    # Many networks block it, so what tries one port after another comes to it last.
    assert 25 not in [port for port, _ in ports[:-1]]


@pytest.mark.parametrize(("name", "port"), ALTERNATIVES)
def test_a_port_that_networks_rarely_block_is_known_where_it_is_offered(name: str, port: int) -> None:
    assert (port, "starttls") in preset_named(name).other_ports


def test_a_rate_is_filled_only_where_one_is_published_for_every_account() -> None:
    assert {name: preset.keys["rate"] for name, _, preset in presets() if "rate" in preset.keys} == RATES
    assert all(parse_rate(rate, None) > 0 for rate in RATES.values())


@pytest.mark.parametrize(
    ("name", "sessions"),
    [
        ("microsoft365", {"max": 3}),
        ("mailtrap", {"max": 10, "messages": 100}),
        ("cloudflare", {"messages": 50}),
        ("sparkpost-eu", {"max": 10, "messages": 100}),
    ],
)
def test_a_limit_of_connections_is_kept(name: str, sessions: dict[str, int]) -> None:
    assert preset_named(name).keys["sessions"] == sessions


def test_a_session_with_cloudflare_never_has_more_recipients_than_it_takes() -> None:
    keys = preset_named("cloudflare").keys
    assert keys["recipients"] * keys["sessions"]["messages"] <= 50


@pytest.mark.parametrize("name", ["microsoft365", "google"])
def test_a_mailbox_provider_wants_a_token_and_a_password_on_request(name: str) -> None:
    preset = preset_named(name)
    assert preset.fill({"preset": name})["auth"] == "xoauth2"
    assert preset.fill({"preset": name, "auth": "password"})["auth"] == "password"
    assert preset.sample["oauth2"]["scope"].startswith("https://")


@pytest.mark.parametrize(("provider", "preset"), PRESETS)
def test_what_is_unverified_is_something_that_the_preset_has(provider: Provider, preset: Preset) -> None:
    known = {field.name for field in fields(Facts)} | {"other_ports"} | set(preset.keys)
    known |= {f"sessions.{key}" for key in preset.keys.get("sessions", {})}
    assert set(preset.unverified) <= known
    assert len(set(preset.unverified)) == len(preset.unverified)


@pytest.mark.parametrize(("provider", "preset"), PRESETS)
def test_the_field_that_the_relay_sets_itself_stands_in_one_place(provider: Provider, preset: Preset) -> None:
    assert provider.correlation_header is None or preset.facts.metadata is None


@pytest.mark.parametrize(("provider", "preset"), PRESETS)
def test_a_fact_is_one_line(provider: Provider, preset: Preset) -> None:
    facts = preset.facts
    texts = [facts.reply_id, facts.metadata, facts.region, *facts.limits, *facts.notes, *preset.needs.values()]
    assert all(text is None or (text.isprintable() and text.strip() == text != "") for text in texts)
    assert all(note.endswith(".") for note in facts.notes)


def test_the_providers_with_an_api_name_its_module() -> None:
    assert {one.name: one.api for one in PROVIDERS if one.api is not None} == APIS
    assert set(APIS.values()) == NAMES


def test_a_preset_of_a_region_has_that_regions_api() -> None:
    assert {name: preset.api_url for name, _, preset in presets() if preset.api_url is not None} == API_URLS
    assert all(provider.api for _, provider, preset in presets() if preset.api_url is not None)


def test_a_preset_with_a_region_in_its_name_has_the_facts_of_its_provider() -> None:
    regional, general = preset_named(REGIONAL), preset_named("ses")
    assert regional.facts.region == "eu-west-1"
    assert regional.facts.limits == general.facts.limits
    assert (regional.other_ports, regional.unverified) == (general.other_ports, general.unverified)
    provider = provider_of(REGIONAL)
    assert provider is not None
    assert provider.api == "ses"


def test_no_api_is_loaded_before_it_is_asked_for() -> None:
    program = "import relay.providers.registry, sys; print(*(one for one in sys.modules if '.apis' in one))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout == "\n"


def rows(title: str) -> dict[str, list[str]]:
    """The rows of the first table below a heading of the page, by their first cell without its quotes."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    table = re.search(r"^\|[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)+)", found[1], re.MULTILINE)
    assert table is not None
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]
    return {first.strip("`"): rest for first, *rest in cells}


def ports_as_shown(preset: Preset, tls: str) -> str:
    own = [f"**{preset.keys['port']}**"] if preset.keys["tls"] == tls else []
    shown = ", ".join([*own, *(str(port) for port, kind in preset.other_ports if kind == tls)])
    return f"{shown or '–'}{' [unverified]' if tls == 'starttls' and 'other_ports' in preset.unverified else ''}"


def test_the_page_has_every_preset_with_its_server_and_ports() -> None:
    assert rows("Servers") == {
        name: [
            f"`{preset.keys.get('host', 'email-smtp.REGION.amazonaws.com')}`",
            ports_as_shown(preset, "starttls"),
            ports_as_shown(preset, "implicit"),
        ]
        for name, _, preset in presets()
    }


def test_the_page_has_what_each_preset_sets() -> None:
    def shown(preset: Preset) -> list[str]:
        keys = {**preset.keys, **{f"sessions.{key}": value for key, value in preset.keys.get("sessions", {}).items()}}
        names = ("rate", "recipients", "sessions.max", "sessions.messages", "sessions.idle", "auth")
        cells = [
            f"{keys[name]}{' [unverified]' if name in preset.unverified else ''}" if name in keys else "–"
            for name in names
        ]
        return [*cells, ", ".join(preset.keys.get("unsigned_headers", ())) or "–"]

    expected = {name: shown(preset) for name, _, preset in presets()}
    assert rows("What a preset sets") == {name: row for name, row in expected.items() if set(row) != {"–"}}


def test_the_page_has_the_reply_the_field_and_the_api_of_every_provider() -> None:
    shown = rows("Replies, metadata and APIs")
    assert list(shown) == [provider.name for provider in PROVIDERS]
    for provider in PROVIDERS:
        preset = next(iter(provider.presets.values()))
        reply_id, metadata, events, api = shown[provider.name]
        assert ("[unverified]" in reply_id) == ("reply_id" in preset.unverified)
        assert (reply_id == "–") == (preset.facts.reply_id is None and "reply_id" not in preset.unverified)
        header = provider.correlation_header or (preset.facts.metadata or "").partition(" ")[0]
        assert metadata == (f"`{header}`" if header else "[unverified]" if "metadata" in preset.unverified else "–")
        assert (events, api) == ("webhook" if provider.webhook else "–", "yes" if provider.api else "–")


def test_the_page_has_every_limit_and_note() -> None:
    text = " ".join(PAGE.split())
    for provider in PROVIDERS:
        for preset in provider.presets.values():
            assert all(one in text for one in (*preset.facts.limits, *preset.facts.notes)), provider.name
