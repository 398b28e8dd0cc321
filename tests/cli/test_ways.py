"""`explain` says by which way a message goes to each upstream, why not by the API, and whether it is signed there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.__main__ import main
from relay.cli.ways import Mail, accepted, ways
from relay.config.load import load
from relay.config.model import Upstream
from relay.delivery.attempt import load_of
from relay.delivery.message import Job
from relay.mail.envelope import Envelope, Recipient
from relay.mail.message import normalise, parse
from relay.store.model import OpenRecipient, Queued
from relay.upstream.gate import Gate
from relay.upstream.http.request import seen_now
from relay.upstream.http.upstream import finish_of
from tests.support.relay import write_config

HEAD = "From: Login <a@auth.example.com>\nTo: u@example.net\nSubject: hi\n"
PLAIN = f"{HEAD}\nhello\n"
RELATED = f"{HEAD}Content-Type: multipart/related; boundary=x\n\n--x\n\nhello\n--x--\n"
SIGNED = f"DKIM-Signature: v=1; d=example.com\n{PLAIN}"
RAW_8_BIT = PLAIN.replace("Login", "Löwe")
RAW_8_BIT_SIGNED = f"DKIM-Signature: v=1; d=example.com\n{RAW_8_BIT}"

RESEND = {"preset": "resend", "password": "re_hunter2"}
POSTMARK = {"preset": "postmark", "password": "hunter2"}
SES = {"preset": "ses-eu-west-1", "api": {"access_key_id": "AKIA", "secret_access_key": "hunter2"}}
MAILGUN = {"preset": "mailgun", "username": "mg.example.com", "password": "hunter2", "api": {"key": "hunter2"}}
MX = {"host": "127.0.0.1", "port": 1025, "tls": "none"}
SES_SMTP = {**SES, "username": "AKIA", "password": "hunter2"}


def explained(
    folder: Path, mail: str, capsys: pytest.CaptureFixture[str], upstreams: dict[str, Any], *words: str, **keys: object
) -> tuple[dict[str, Any], list[str]]:
    """The JSON document, and the lines of the text."""
    config = write_config(folder, upstreams, **keys)
    file = folder / "mail.eml"
    file.write_text(mail)
    assert main(["explain", "-c", str(config), str(file), "--json", *words]) == 0
    document = json.loads(capsys.readouterr().out)
    assert main(["explain", "-c", str(config), str(file), *words]) == 0
    return document, capsys.readouterr().out.splitlines()


def dkim_keys(folder: Path) -> dict[str, Any]:
    key = folder / "s1.pem"
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key.touch(mode=0o600)
    key.write_bytes(pem)
    return {"dkim": [{"domain": "example.com", "keys": [{"selector": "s1", "key_file": str(key)}]}]}


def of(lines: list[str], name: str) -> list[str]:
    return [line.removeprefix(f"{name} ").strip() for line in lines if line.startswith(f"{name} ")]


@pytest.mark.parametrize(
    ("upstream", "mail", "way", "text"),
    [
        (
            {**RESEND, "via": "auto"},
            PLAIN,
            {"via": "api", "why_not_api": None, "signed": False},
            "API; it builds the message anew, so no signature of ours",
        ),
        (
            {**RESEND, "via": "auto"},
            RELATED,
            {"via": "smtp", "why_not_api": "inline parts (multipart/related)", "signed": True},
            "SMTP, since the API can't carry it: inline parts (multipart/related)",
        ),
        (
            {**POSTMARK, "via": "api"},
            RELATED,
            {"via": "api", "why_not_api": "inline parts (multipart/related)", "signed": False},
            "can't carry it: inline parts (multipart/related); it goes to the next upstream",
        ),
        (
            {**POSTMARK, "via": "auto"},
            SIGNED,
            {"via": "smtp", "why_not_api": "a signature in the header", "signed": True},
            "SMTP, since the API can't carry it: a signature in the header",
        ),
        (
            {**SES, "via": "api"},
            RELATED,
            {"via": "api", "why_not_api": None, "signed": True},
            "API; it takes the message as it is, with a signature of ours",
        ),
        (
            {**MAILGUN, "via": "api"},
            RELATED,
            {"via": "api", "why_not_api": None, "signed": False},
            "API; it takes the message as it is, but may break signatures, so none of ours",
        ),
        (
            {**SES_SMTP, "via": "auto"},
            RAW_8_BIT_SIGNED,
            {
                "via": "smtp",
                "why_not_api": "a header section with raw 8-bit text that can't be encoded",
                "signed": True,
            },
            "SMTP, since the API can't carry it: a header section with raw 8-bit text that can't be encoded",
        ),
        ({**SES_SMTP, "via": "smtp"}, PLAIN, {"via": "smtp", "why_not_api": None, "signed": True}, None),
    ],
)
def test_each_upstream_has_its_way_and_the_reason_why_not_by_the_api(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    upstream: dict[str, Any],
    mail: str,
    way: dict[str, Any],
    text: str | None,
) -> None:
    upstreams = {"esp": upstream, "mx": MX}
    document, lines = explained(tmp_path, mail, capsys, upstreams, **dkim_keys(tmp_path))
    assert document["ways"] == {"esp": way, "mx": {"via": "smtp", "why_not_api": None, "signed": True}}
    assert of(lines, "via") == ([f"esp: {text}"] if text is not None else [])


@pytest.mark.parametrize(
    ("upstreams", "signed"),
    [
        ({"resend": {**RESEND, "via": "api"}, "postmark": {**POSTMARK, "via": "auto"}}, "no"),
        ({"resend": {**RESEND, "via": "api"}, "mx": MX}, "example.com: s1"),
        ({"ses": {**SES, "via": "api"}}, "example.com: s1"),
    ],
)
def test_selectors_are_named_only_where_a_signature_goes_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], upstreams: dict[str, Any], signed: str
) -> None:
    document, lines = explained(tmp_path, PLAIN, capsys, upstreams, **dkim_keys(tmp_path))
    assert of(lines, "signed") == [signed]
    assert document["dkim"] == (None if signed == "no" else {"domain": "example.com", "selectors": ["s1"]})


def test_without_keys_no_way_signs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, lines = explained(tmp_path, PLAIN, capsys, {"ses": {**SES, "via": "api"}, "mx": MX})
    assert [way["signed"] for way in document["ways"].values()] == [False, False]
    assert of(lines, "via") == ["ses: API; it takes the message as it is, without a signature of ours"]


def test_mail_that_no_upstream_of_the_lane_can_carry_bounces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstreams = {"resend": {**RESEND, "via": "api"}, "postmark": {**POSTMARK, "via": "api"}}
    _, lines = explained(tmp_path, RELATED, capsys, upstreams)
    assert [line.rpartition("; ")[2] for line in of(lines, "via")] == [
        "no other upstream can, so it bounces (5.6.1)"
    ] * 2


def test_an_address_in_to_that_is_no_recipient_keeps_a_json_api_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstreams = {"resend": {**RESEND, "via": "auto"}}
    document, _ = explained(tmp_path, PLAIN, capsys, upstreams, "--to", "other@example.net")
    assert document["ways"]["resend"]["why_not_api"] == "an address in To or Cc that is no recipient"
    document, _ = explained(tmp_path, PLAIN, capsys, upstreams, "--to", "U@example.net", "--to", "bcc@example.net")
    assert document["ways"]["resend"]["why_not_api"] is None


def test_redirected_mail_is_carried_to_the_redirect_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upstreams = {"resend": {**RESEND, "via": "auto"}}
    document, _ = explained(
        tmp_path, PLAIN, capsys, upstreams, "--to", "other@example.net", redirect="staging@example.com"
    )
    assert document["ways"]["resend"]["via"] == "api"


@pytest.mark.parametrize(
    ("upstream", "reason"),
    [({**SES_SMTP, "via": "auto"}, "more than 50 recipients"), ({**SES, "via": "api"}, None)],
)
def test_more_recipients_than_a_request_may_have_go_in_several_or_by_smtp(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], upstream: dict[str, Any], reason: str | None
) -> None:
    many = [word for number in range(51) for word in ("--to", f"u{number}@example.net")]
    document, _ = explained(tmp_path, PLAIN, capsys, {"ses": upstream}, *many)
    assert document["ways"]["ses"]["why_not_api"] == reason


def test_a_header_of_the_upstreams_own_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upstreams = {"sendgrid": {"preset": "sendgrid", "password": "x", "via": "auto", "headers": {"X-SG-EID": "1"}}}
    document, _ = explained(tmp_path, PLAIN, capsys, upstreams)
    assert document["ways"]["sendgrid"]["why_not_api"] == "a field X-SG-EID that the API can't set"


def test_a_message_in_a_loop_would_be_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, file = write_config(tmp_path, {"mx": MX}), tmp_path / "mail.eml"
    file.write_text("Received: by there\n" * 200 + PLAIN)
    assert main(["explain", "-c", str(config), str(file)]) == 2
    assert capsys.readouterr().err.endswith("would be refused: 554 5.4.6 too many hops\n")


async def no_signature(*_: object) -> tuple[bytes]:
    raise AssertionError


def delivered_as(upstream: Upstream, content: bytes, recipients: tuple[str, ...], redirect: str | None) -> str | None:
    """Why not by the API, as delivery finds it out."""
    people = tuple(map(Recipient, recipients))
    due = tuple(OpenRecipient(position, one, 0, 0) for position, one in enumerate(people))
    queued = Queued("0" * 26, "otp", None, Envelope("a@auth.example.com", people), content, 0.0, 60.0, due)
    job = Job(queued, Gate(60.0), no_signature, 0.0, redirect)
    found = seen_now(load_of(job), upstream, finish_of(upstream))
    assert found is not None
    return found if isinstance(found, str) else None


@pytest.mark.parametrize("mail", [PLAIN, RELATED, SIGNED, RAW_8_BIT], ids=["plain", "related", "signed", "raw 8-bit"])
@pytest.mark.parametrize("recipients", [("u@example.net",), ("other@example.net",), ("u@example.net", "v@example.net")])
@pytest.mark.parametrize("redirect", [None, "staging@example.com"])
def test_explain_and_delivery_agree(
    tmp_path: Path, mail: str, recipients: tuple[str, ...], redirect: str | None
) -> None:
    upstreams = {
        "resend": {**RESEND, "via": "auto", "webhook": {"secret": "whsec_aHVudGVyMmh1bnRlcjI="}},
        "postmark": {**POSTMARK, "via": "auto", "headers": {"X-PM-Message-Stream": "codes", "Message-ID": None}},
        "ses": {**SES_SMTP, "via": "auto"},
        "mailgun": {**MAILGUN, "via": "auto"},
    }
    config = load(write_config(tmp_path, upstreams, **({"redirect": redirect} if redirect else {})), {}).config
    content = accepted(parse(normalise(mail.encode())), "relay.example.com")
    of_mail = Mail(content, "a@auth.example.com", recipients, is_part=False, has_keys=True)
    found = ways(config, list(upstreams), of_mail)
    assert {name: way["why_not_api"] for name, way in found.items()} == {
        name: delivered_as(config.upstreams[name], content, recipients, redirect) for name in upstreams
    }
