from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import SecretStr

from relay.config import fields, model
from relay.config.errors import ConfigErrors
from relay.config.load import load
from relay.config.network import SystemdAddress, TcpAddress, UnixAddress
from relay.config.rate_limit import CountPer
from tests.config.conftest import ENVIRON, LoadText
from tests.config.keyfiles import STORE_KEYS

GOOD = Path(__file__).parent.parent / "configs" / "good"
EXAMPLES = Path(__file__).parent.parent.parent / "config"
OF_THE_EXAMPLES = {
    "POSTMARK_TOKEN": "hunter2",
    "RELAY_HTTP_TOKEN": "hunter2",
    "RELAY_UPSTREAM": "smtp.example.com",
    "SES_PASSWORD": "hunter2",
    "SES_USER": "AKIA",
    "SMTP_HOST": "smtp.example.com",
    "SMTP_PASSWORD": "hunter2",
    "SMTP_USER": "user",
}


def good(name: str, load_text: LoadText, **environ: str) -> model.Loaded:
    return load_text((GOOD / f"{name}.yaml").read_bytes(), {**ENVIRON, **OF_THE_EXAMPLES, **environ})


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_example_that_is_shipped_loads(file: Path) -> None:
    load(file, OF_THE_EXAMPLES)


def test_where_a_list_is_expected_one_value_will_do(load_text: LoadText) -> None:
    config = good("one-for-a-list", load_text).config
    assert [listener.address for listener in config.listen] == [TcpAddress("127.0.0.1", 2526)]
    assert [rule.name for rule in config.rules] == ["one"]
    assert [(entry.domain, [key.selector for key in entry.keys]) for entry in config.dkim] == [("example.com", ["s1"])]
    assert config.lanes["otp"].retry_s == (2.0,)


def test_the_annotated_example_needs_nothing_and_leaves_nothing_to_note() -> None:
    assert load(EXAMPLES / "relay.yaml", {}).notes == ()


def test_the_annotated_example_names_every_key_of_the_file() -> None:
    text = (EXAMPLES / "relay.yaml").read_text()
    sections = [s for s in vars(model).values() if isinstance(s, type) and issubclass(s, fields.Section)]
    keys = {field.alias or name for section in sections for name, field in section.model_fields.items()}
    assert {key for key in keys if not re.search(rf"\b{key}\b", text)} == set()


def test_the_references_example_has_the_documented_values(load_text: LoadText, folder: Path) -> None:
    loaded = good("contract", load_text)
    config = loaded.config
    assert config.listen[0].address == TcpAddress("127.0.0.1", 2525)
    assert config.listen[0].allow == (ip_network("127.0.0.0/8"),)
    assert config.store == folder / "data/relay.db"
    assert config.upstreams["postmark"].host == "smtp.postmarkapp.com"
    assert config.upstreams["ses"].password == SecretStr("hunter2")
    assert config.upstreams["ses"].sessions.idle_s == 45
    assert (config.upstreams["ses"].sessions.warm, config.upstreams["ses"].sessions.depth) == ("auto", 4)
    assert config.upstreams["ses"].rate == 50
    otp = config.lanes["otp"]
    assert otp.express
    assert otp.retry_s == (0.2, 1.0, 3.0, 8.0, 20.0, 30.0)
    assert (otp.expires_s, otp.hedge_s, otp.attempt_s, otp.final_s) == (600, 2, 10, 60)
    assert otp.limits.per_recipient == (CountPer(5, 3600),)
    assert otp.limits.resend_after_s == (30.0,)
    assert config.lanes["bulk"].expires_s == 2 * 86400
    assert config.rules[2].match.client == (ip_network("10.1.0.0/16"),)
    assert config.default_lane == "bulk"
    assert config.limits.message_size_bytes == 30_000_000
    assert set(loaded.dkim_pems) == {folder / "keys/rsa2048.pem", folder / "keys/ed25519.pem"}
    assert all(pem.startswith(b"-----BEGIN PRIVATE KEY-----\n") for pem in loaded.dkim_pems.values())


def test_the_contracts_example_has_no_key_without_effect(load_text: LoadText) -> None:
    notes = good("contract", load_text).notes
    assert not any("no effect" in note for note in notes)
    assert not any("workers" in note or "store_key_file" in note for note in notes)


def test_missing_keys_get_the_express_or_the_bulk_default(load_text: LoadText) -> None:
    config = good("defaults", load_text).config
    assert {name for name, lane in config.lanes.items() if lane.express} == {"otp", "quick", "forced"}
    assert {name: lane.expires_s for name, lane in config.lanes.items()} == {
        "otp": 600,
        "quick": 3600,
        "slow": 3660,
        "forced": 2 * 86400,
        "bulk": 2 * 86400,
    }
    assert (config.lanes["quick"].attempt_s, config.lanes["quick"].final_s) == (10, 60)
    assert (config.lanes["slow"].attempt_s, config.lanes["slow"].final_s) == (60, 300)
    assert config.lanes["forced"].retry_s == (0.2, 1.0, 3.0, 8.0, 20.0, 30.0)
    assert config.lanes["bulk"].retry_s == (60.0, 300.0, 900.0, 3600.0, 14400.0)
    assert config.default_lane == "bulk"
    assert config.hostname == "machine.example.com"
    assert config.listen[0].address == TcpAddress("127.0.0.1", 2525)
    assert (config.rules, config.dkim, config.shutdown_s) == ((), (), 20)


def test_unused_lanes_and_upstreams_are_noted(load_text: LoadText, folder: Path) -> None:
    notes = good("defaults", load_text).notes
    unused = "no rule, listener or default_lane leads to this lane"
    assert f"{folder}/relay.yaml:5: lanes.quick: {unused}" in notes
    assert not any("lanes.bulk" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "host", "port", "tls", "username"),
    [
        ("postmark", "smtp.postmarkapp.com", 587, "starttls", "hunter2"),
        ("broadcasts", "smtp-broadcasts.postmarkapp.com", 587, "starttls", "other"),
        ("sendgrid", "smtp.sendgrid.net", 587, "starttls", "apikey"),
        ("sendgrid-eu", "smtp.eu.sendgrid.net", 2525, "starttls", "apikey"),
        ("ses", "email-smtp.us-east-1.amazonaws.com", 465, "implicit", "AKIA"),
        ("ses-west", "email-smtp.eu-west-1.amazonaws.com", 465, "implicit", "AKIA"),
        ("ses-gov", "email-smtp.us-gov-west-1.amazonaws.com", 465, "implicit", "AKIA"),
        ("resend", "smtp.resend.com", 465, "implicit", "resend"),
        ("mailgun", "smtp.mailgun.org", 465, "implicit", "postmaster@mg.example.com"),
        ("mailgun-eu", "smtp.eu.mailgun.org", 465, "implicit", "postmaster@mg.example.com"),
        ("brevo", "smtp-relay.brevo.com", 465, "implicit", "a@example.com"),
        ("sparkpost", "smtp.eu.sparkpostmail.com", 587, "starttls", "SMTP_Injection"),
        ("mailjet", "in-v3.mailjet.com", 465, "implicit", "key"),
        ("mandrill", "smtp.mandrillapp.com", 587, "starttls", "a@example.com"),
        ("scaleway", "smtp.tem.scaleway.com", 587, "starttls", "id"),
        ("azure", "smtp.azurecomm.net", 587, "starttls", "name"),
    ],
)
def test_a_preset_fills_what_is_left_out(
    load_text: LoadText, name: str, host: str, port: int, tls: str, username: str
) -> None:
    upstream = good("presets", load_text).config.upstreams[name]
    assert (upstream.host, upstream.port, upstream.tls, upstream.username) == (host, port, tls, username)
    assert upstream.password == SecretStr("hunter2")


def test_a_presets_sessions_are_overridden_key_by_key(load_text: LoadText) -> None:
    upstreams = good("presets", load_text).config.upstreams
    assert (upstreams["ses-west"].sessions.warm, upstreams["ses-west"].sessions.idle_s) == (2, 8)
    assert upstreams["ses-west"].unsigned_headers == ("date",)
    assert upstreams["ses-gov"].sessions.idle_s == 8
    assert upstreams["broadcasts"].sessions.max == 3
    assert upstreams["postmark"].sessions.max == 10
    assert upstreams["sendgrid"].sessions.messages == 5_000
    assert (upstreams["sparkpost"].sessions.max, upstreams["sparkpost"].sessions.messages) == (10, 100)
    assert {upstream.sessions.warm for name, upstream in upstreams.items() if name != "ses-west"} == {"auto"}
    assert upstreams["ses"].unsigned_headers == ("message-id", "date", "return-path")
    assert upstreams["resend"].recipients == 1


@pytest.mark.parametrize(
    ("keys", "warm", "depth", "least"),
    [("", "auto", 4, 1), ("warm: auto", "auto", 4, 1), ("warm: 0, depth: 1", 0, 1, 1), ("warm: 3, depth: 8", 3, 8, 3)],
)
def test_the_sessions_that_a_lane_keeps_open_are_a_number_or_auto(
    load_text: LoadText, keys: str, warm: int | str, depth: int, least: int
) -> None:
    text = f"upstreams: {{mx: {{host: 127.0.0.1, sessions: {{{keys}}}}}}}\nlanes: {{otp: {{upstreams: mx}}}}\n"
    sessions = load_text(text.encode()).config.upstreams["mx"].sessions
    assert (sessions.warm, sessions.depth, sessions.least) == (warm, depth, least)


def test_as_many_sessions_as_the_express_lanes_need_are_enough(load_text: LoadText) -> None:
    text = """
        upstreams: {mx: {host: 127.0.0.1, sessions: {warm: 2, max: 4}}}
        lanes: {otp: {upstreams: mx}, login: {upstreams: mx, expires: 5m}, bulk: {upstreams: mx}}
        rules: [{name: one, match: {client: 10.1.0.0/16}, lane: login, upstreams: mx}]
    """
    assert load_text(text.encode()).config.upstreams["mx"].sessions.max == 4


def test_listeners_of_every_kind(load_text: LoadText, folder: Path) -> None:
    listen = good("listeners", load_text).config.listen
    assert [listener.address for listener in listen[:7]] == [
        TcpAddress("127.0.0.1", 0),
        TcpAddress("127.0.0.1", 0),
        TcpAddress("::1", 2525),
        TcpAddress("localhost", 2526),
        UnixAddress(f"{folder}/run/relay.sock"),
        SystemdAddress("smtp"),
        SystemdAddress("submission"),
    ]
    assert listen[7].allow == tuple(
        ip_network(network) for network in ("10.0.0.0/8", "2001:db8::/32", "192.0.2.0/24", "192.0.2.7/32")
    )
    assert listen[9].allow == ()


def test_a_systemd_socket_serves_only_this_machine_without_allow(load_text: LoadText) -> None:
    listen = good("listeners", load_text).config.listen
    assert listen[5].allow == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert listen[6].allow == (ip_network("10.0.0.0/8"),)


def test_the_environment_fills_text_numbers_and_booleans(load_text: LoadText) -> None:
    mx = good("environment", load_text, ALLOW="true", DOMAIN="example.net").config.upstreams["mx"]
    assert (mx.host, mx.port, mx.tls, mx.allow_plaintext, mx.username, mx.rate) == (
        "127.0.0.1",
        2526,
        "none",
        True,
        "user",
        None,
    )
    assert mx.password == SecretStr("ahunter2-from-the-environmentb${SECRET}$c")


def test_a_value_of_the_environment_is_not_expanded_again(load_text: LoadText) -> None:
    config = good("environment", load_text, DOMAIN="${SECRET}").config
    assert config.rules[0].match.sender == ("*@${SECRET}",)


def test_every_style_of_yaml_is_read(load_text: LoadText) -> None:
    config = good("odd-but-yaml", load_text).config
    assert config.upstreams["mx"].port == 25
    assert config.lanes["otp"].retry_s == (1.0, 2.0)
    assert config.hostname == "relay.example.com"


def test_a_key_with_windows_line_ends_is_a_key(load_text: LoadText, folder: Path) -> None:
    loaded = load_text(
        "upstreams: {mx: {host: 127.0.0.1, tls: none}}\nlanes: {otp: {upstreams: mx}}\n"
        "dkim: [{domain: Example.COM, keys: [{selector: s1, key_file: keys/crlf.pem}]}]\n"
    )
    assert loaded.dkim_pems[folder / "keys/crlf.pem"] == (folder / "keys/rsa2048.pem").read_bytes()
    assert loaded.config.dkim[0].domain == "example.com"


NOTED = [
    ("listen: [{address: '0.0.0.0:25', allow: 0.0.0.0/0}]", "listen[0].allow: allows every client there is"),
    (
        "listen: [{address: '127.0.0.1:25', tls: starttls, cert_file: keys/expired.crt, key_file: keys/tls.key}]",
        "listen[0].cert_file: the certificate expired on ",
    ),
    (
        "listen: [{address: '127.0.0.1:25', users_file: keys/users}]",
        "listen[0].users_file: isn't used, as auth is none",
    ),
    (
        "dkim: [{domain: example.com, keys: [{selector: s1, key_file: keys/rsa1024.pem}]}]",
        "dkim[0].keys[0].key_file: the key has 1024 bits; 2048 are advised (RFC 8301)",
    ),
    (
        "rules: [{name: a, match: {}, lane: otp, upstreams: other}]",
        "rules[0].upstreams: isn't an upstream of lane otp; the rule adds it",
    ),
    ("default_lane: otp", "upstreams.other: no lane or rule uses this upstream"),
]


@pytest.mark.parametrize(("text", "note"), NOTED)
def test_odd_but_allowed_values_are_noted(text: str, note: str, load_text: LoadText, folder: Path) -> None:
    loaded = load_text(
        f"{text}\nupstreams: {{mx: {{host: 127.0.0.1, tls: none}}, other: {{host: 127.0.0.1, tls: none}}}}\n"
        "lanes: {otp: {upstreams: mx}}\n"
    )
    assert any(f": {note}" in told for told in loaded.notes), loaded.notes


def test_a_secret_that_others_can_read_is_noted(load_text: LoadText, folder: Path) -> None:
    exposed = folder / "keys" / "exposed"
    exposed.write_text("hunter2\n")
    exposed.chmod(0o644)
    loaded = load_text(
        "upstreams: {mx: {host: smtp.example.com, username: a, password_file: keys/exposed}}\n"
        "lanes: {otp: {upstreams: mx}}\n"
    )
    assert any("every user of this machine can read" in note for note in loaded.notes)


STORE = "upstreams: {mx: {host: 127.0.0.1, tls: none}}\nlanes: {otp: {upstreams: mx}}\n"


def test_the_stores_keys_are_read_a_line_each_in_hexadecimal_or_base64(load_text: LoadText, folder: Path) -> None:
    loaded = load_text(f"store_key_file: keys/store.key\n{STORE}")
    assert loaded.store_keys == STORE_KEYS
    assert STORE_KEYS[0].hex() not in repr(loaded)
    assert repr(STORE_KEYS[0])[2:-1] not in repr(loaded)


def test_without_a_file_named_the_stores_key_is_the_services_credential(
    load_text: LoadText, folder: Path, tmp_path: Path
) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load_text(STORE, environ).store_keys == ()
    (tmp_path / "store_key").write_text(STORE_KEYS[1].hex())
    loaded = load_text(STORE, environ)
    assert (loaded.store_keys, loaded.config.store_key_file) == (STORE_KEYS[1:], tmp_path / "store_key")
    assert load_text(f"store_key_file: keys/store.key\n{STORE}", environ).store_keys == STORE_KEYS
    (tmp_path / "store_key").write_text("hunter2")
    with pytest.raises(ConfigErrors, match=r"store_key_file: line 1 of .*store_key isn't a key") as caught:
        load_text(STORE, environ)
    assert "hunter2" not in str(caught.value)


def test_nothing_that_is_loaded_shows_a_secret_when_printed(load_text: LoadText) -> None:
    for name in ("contract", "presets", "listeners", "environment"):
        loaded = good(name, load_text)
        assert "hunter2" not in repr(loaded)
        assert "PRIVATE KEY" not in repr(loaded)


def test_keys_of_a_webhook_that_change_nothing_are_noted(load_text: LoadText, folder: Path) -> None:
    text = """
upstreams:
  mx:
    {host: 127.0.0.1, port: 1025, tls: none,
     webhook: {kind: postmark, secret: ["a:b", "a:b"], certificates: /tmp}}
lanes:
  otp: {upstreams: mx}
  bulk: {upstreams: mx}
"""
    notes = " ".join(load_text(text.encode()).notes)
    assert "webhook.secret: has the same secret twice" in notes
    assert "webhook.certificates: isn't used: certificates are SES's" in notes
