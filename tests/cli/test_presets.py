"""The command `presets`: the list, and one preset as YAML that works when it is pasted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.__main__ import main
from relay.config.load import load
from relay.config.model import Upstream
from relay.providers.registry import find_preset, presets
from tests.support.service_account import key_file

NAMES = [*(name for name, _, _ in presets()), "ses-eu-west-1"]
VALUES = {"host": "email-smtp.eu-west-1.amazonaws.com"}
"""what an operator writes for a key that is no secret"""


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["presets", *words]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def objects(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def as_yaml(upstreams: Mapping[str, Any]) -> str:
    return yaml.safe_dump({"upstreams": upstreams}, sort_keys=False)


def upstream_of(folder: Path, text: str, name: str) -> Upstream:
    """The upstream of that name in a configuration that has these upstreams."""
    config = folder / "relay.yaml"
    config.write_text(f"hostname: relay.example.com\nlanes: {{otp: {{upstreams: {name}}}}}\n{text}")
    (folder / "secrets").mkdir(exist_ok=True)
    (folder / "secrets/google.json").write_bytes(key_file())
    named = re.findall(r"\$\{([A-Z0-9_]+)_([A-Z]+)\}", text)
    environment = {f"{first}_{last}": VALUES.get(last.lower(), "x") for first, last in named}
    return load(config, environment).config.upstreams[name]


def test_the_list_has_a_line_for_each_preset(capsys: pytest.CaptureFixture[str]) -> None:
    head, *lines = shown(capsys).partition("\n\n")[0].splitlines()
    assert head.split() == ["NAME", "PROVIDER", "SERVER", "TLS", "BY"]
    assert [line.split()[0] for line in lines] == [name for name, _, _ in presets()]
    cells = {line.split()[0]: line.split(maxsplit=4)[1:] for line in lines}
    assert cells["mailgun-eu"] == ["mailgun", "smtp.eu.mailgun.org:465", "implicit", "SMTP, API"]
    assert cells["google"] == ["google", "smtp.gmail.com:465", "implicit", "SMTP"]
    assert cells["ses"] == ["ses", "email-smtp.REGION.amazonaws.com:465", "implicit", "SMTP, API"]


def test_the_list_says_how_to_name_a_region(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, hint = shown(capsys).partition("\n\n")
    assert hint.startswith("ses needs host: ")
    assert hint.endswith("as in ses-eu-west-1\n")


def test_the_list_in_json_has_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    listed = objects(shown(capsys, "--json"))
    assert [one["name"] for one in listed] == [name for name, _, _ in presets()]
    by_name = {one["name"]: one for one in listed}
    assert by_name["microsoft365"] == {
        "name": "microsoft365",
        "provider": "microsoft365",
        "host": "smtp.office365.com",
        "port": 587,
        "tls": "starttls",
        "smtp": True,
        "api": "graph",
    }
    assert by_name["ses"]["host"] is None
    assert by_name["azure"]["api"] is None


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_can_be_pasted_under_upstreams(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = f"upstreams:\n{shown(capsys, name)}"
    preset = find_preset(name)
    assert preset is not None
    upstream = upstream_of(tmp_path, text, name)
    assert upstream.preset == name
    assert upstream.host == preset.keys.get("host", VALUES["host"])
    assert (upstream.port, upstream.tls) == (preset.keys["port"], preset.keys["tls"])


@pytest.mark.parametrize("name", NAMES)
def test_the_keys_below_the_remark_are_those_that_the_preset_fills(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = f"upstreams:\n{shown(capsys, name)}"
    own, _, filled = text.partition("    # What the preset fills; these keys may be left out:\n")
    preset = find_preset(name)
    assert preset is not None
    assert yaml.safe_load(filled) == json.loads(json.dumps(preset.keys))
    whole, without = (upstream_of(tmp_path, one, name).model_dump() for one in (text, own))
    assert whole == without


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("ses-eu-west-1", "      idle: 8s  # [unverified]"),
        ("ses-eu-west-1", "    # region: eu-west-1"),
        ("sendgrid", "    port: 465  # or 587 starttls, 2525 starttls, 25 starttls"),
        ("mailersend", "    port: 587  # or 2525 starttls [unverified]"),
        ("cloudflare", "    port: 465"),
        ("cloudflare", "    # events: none that the relay reads"),
        ("resend", "    rate: 5/s"),
        ("mailgun", "    username: ${MAILGUN_USERNAME}  # the domain's SMTP login"),
        ("postmark-broadcasts", "    password: ${POSTMARK_BROADCASTS_PASSWORD}  # or password_file"),
        ("microsoft365", "      grant: client_credentials"),
        ("mailtrap", "    # limit: 100 messages a connection"),
        ("brevo", "    # limit: 20 MB a message [unverified]"),
        ("leadpush", "    # limit: [unverified]"),
        ("scaleway", "    # id in the 250: [unverified]"),
        ("postmark", "    # id in the 250: queued as UUID [unverified]"),
        ("postmark", "    # metadata header: X-PM-Metadata-relay-id (the relay puts its id there)"),
        ("mailersend", "    # metadata header: X-MailerSend-Tags (at most 5)"),
        ("mailgun-eu", "    # HTTP API (https://api.eu.mailgun.net): with via: api or via: auto"),
        ("google", "    # The SMTP relay service is host: smtp-relay.gmail.com."),
    ],
)
def test_what_is_known_stands_on_a_line(name: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line in shown(capsys, name).splitlines()


@pytest.mark.parametrize("name", ["microsoft365", "google"])
def test_a_preset_with_tokens_asks_for_no_password(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    keys = yaml.safe_load(shown(capsys, name))[name]
    assert "password" not in keys
    assert (keys["auth"], keys["oauth2"]["scope"][:8]) == ("xoauth2", "https://")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_in_json_is_one_object(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (document,) = objects(shown(capsys, name, "--json"))
    preset = find_preset(name)
    assert preset is not None
    assert document["name"] == name
    assert document["keys"] == json.loads(json.dumps(preset.keys))
    assert [(one["port"], one["tls"]) for one in document["other_ports"]] == list(preset.other_ports)
    assert document["unverified"] == list(preset.unverified)
    assert document["api_url"] == preset.api_url


def test_the_json_of_a_preset_says_what_it_needs_and_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    (document,) = objects(shown(capsys, "mailgun-eu", "--json"))
    assert document["needs"] == {"username": "the domain's SMTP login", "password": "the secret; or password_file"}
    assert (document["metadata"], document["webhook"], document["region"]) == ("X-Mailgun-Variables", True, "EU")
    (document,) = objects(shown(capsys, "microsoft365", "--json"))
    assert set(document["needs"]) == {"username", "oauth2"}
    assert document["limits"][:2] == ["30 messages a minute a mailbox", "3 connections a mailbox"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("postmrk", "did you mean postmark?"),
        ("SendGird", "did you mean sendgrid?"),
        ("ses-europe", "`otp-relay presets` lists them"),
        ("zzzz", "`otp-relay presets` lists them"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_unknown_preset_exits_2_with_the_nearest_name(
    name: str, hint: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["presets", name, *options]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"otp-relay: there is no preset {name}; {hint}\n")


def test_an_unknown_name_reaches_the_terminal_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "a\x1b[31mb\nc"]) == 2
    assert capsys.readouterr().err.startswith("otp-relay: there is no preset a�[31mb�c; ")


def test_the_presets_need_no_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert shown(capsys, "-c", str(tmp_path / "none.yaml"), "--json") == shown(capsys, "--json")
