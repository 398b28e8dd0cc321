"""`otp-relay doctor` as it is typed, and beside a running relay."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from relay.__main__ import main
from relay.config.load import load
from relay.doctor import finding, service
from relay.mail.dkim import dns_record
from relay.store.sqlite import files
from tests.doctor.nameserver import NameServer
from tests.doctor.readyz import Readyz
from tests.mail.material import pem, rsa_key
from tests.support.relay import RelayProcess, Said, command, upstream_keys, write_config
from tests.support.tls import Certificates
from tests.support.upstream import Upstream

ZONE = {
    "s1._domainkey.auth.example.com": dns_record(rsa_key()),
    "auth.example.com": "v=spf1 include:spf.esp.example -all",
    "spf.esp.example": "v=spf1 ip4:192.0.2.0/24 -all",
    "_dmarc.auth.example.com": "v=DMARC1; p=reject",
}
ABOUT = re.compile(r'About\("([a-z]+)"(, [^,()]+(?:\([^()]*\))?(?:, "([a-z-]+)")?)?\)')
NAMED = re.compile(r'named\("([a-z-]+)"\)')
AUTH = {"relay": "hunter2-password"}


def configured(folder: Path, upstream: dict[str, object], **keys: object) -> Path:
    key_file = folder / "s1.pem"
    key_file.touch(mode=0o600)
    key_file.write_bytes(pem(rsa_key()))
    signing = [{"domain": "auth.example.com", "keys": [{"selector": "s1", "key_file": "s1.pem"}]}]
    return write_config(folder, {"esp": upstream}, dkim=signing, store="data/relay.db", **keys)


def test_the_reference_lists_every_id() -> None:
    found: set[str] = set()
    for path in Path(finding.__file__).parent.glob("*.py"):
        text = path.read_text()
        found |= {area for area, _, check in ABOUT.findall(text) if not check}
        found |= {check for _, _, check in ABOUT.findall(text) if check} | set(NAMED.findall(text))
    found -= {"upstream"}  # each of its checks has a name
    reference = (Path(__file__).parents[2] / "docs/reference.md").read_text()
    table = reference.partition("### What doctor finds")[2].partition("\n## ")[0]
    listed = [cell for line in table.splitlines() if line.startswith("| `") for cell in line.split("|")[1].split(",")]
    assert sorted(one.strip(" `") for one in listed) == sorted(found)


async def doctor(config_file: Path, server: NameServer, *arguments: str) -> Said:
    return await command("doctor", "-c", config_file, "--dns", "{}:{}".format(*server.address), *arguments)


async def test_json_is_one_document_that_agrees_with_the_exit_code(tmp_path: Path, certificates: Certificates) -> None:
    async with (
        NameServer(ZONE) as server,
        Upstream(tls="starttls", certificate=certificates.good, auth=AUTH) as upstream,
    ):
        result = await doctor(configured(tmp_path, upstream_keys(upstream, certificates)), server, "--json")
    document = result.document
    assert set(document) == {"ok", "findings"}
    assert {frozenset(one) for one in document["findings"]} == {
        frozenset({"area", "subject", "status", "text", "hint", "id"})
    }
    assert {one["area"] for one in document["findings"]} == {
        "config", "files", "store", "disk", "clock", "relay", "dkim", "spf", "dmarc", "upstream", "lane",
    }  # fmt: skip
    # Nothing about what this test built is amiss but its single upstream; disk and clock are the machine's own.
    amiss = {one["id"] for one in document["findings"] if one["status"] != "ok"}
    assert "lane-failover" in amiss
    assert amiss <= {"disk", "clock", "lane-failover"}
    assert (result.err, document["ok"]) == ("", result.code == 0)
    assert "hunter2" not in result.out


async def test_text_has_a_line_a_finding_and_a_hint_where_it_is_needed(tmp_path: Path) -> None:
    async with NameServer({**ZONE, "s1._domainkey.auth.example.com": ()}) as server, Upstream() as upstream:
        result = await doctor(configured(tmp_path, upstream_keys(upstream)), server)
    assert result.code == 2
    lines = result.out.splitlines()
    at = lines.index("FAIL     dkim: s1._domainkey.auth.example.com: no key is published: signatures")
    record = dns_record(rsa_key())
    assert [line.strip() for line in lines[at + 1 : at + 4]] == [
        "don't verify",
        "publish as TXT at s1._domainkey.auth.example.com:",
        record,
    ]
    # Only what has no blank in it, and what is to be copied, is longer than a terminal is wide.
    assert all(len(line) <= 80 or len(line.split()) <= 2 or record in line for line in lines)
    assert any(line.startswith("ok       upstream: esp: offers PIPELINING, ") for line in lines)
    assert lines[-1].startswith("1 FAIL, ")


async def test_text_from_dns_never_controls_the_terminal(tmp_path: Path) -> None:
    zone = {**ZONE, "auth.example.com": "v=spf1 \x1b[2J -all"}
    async with NameServer(zone) as server, Upstream() as upstream:
        result = await doctor(configured(tmp_path, upstream_keys(upstream)), server)
    assert result.code == 2
    assert "\x1b" not in result.out
    assert "receivers can't read the record" in result.out


@pytest.mark.parametrize("form", ["--json", "text"])
async def test_a_configuration_that_can_not_be_loaded_is_the_only_finding(tmp_path: Path, form: str) -> None:
    config_file = tmp_path / "relay.yaml"
    config_file.write_text("lanes: {otp: {upstreams: [esp], retrry: [1s]}}\nupstreams: {esp: {host: a.example}}\n")
    result = await command("doctor", "-c", config_file, *(["--json"] if form == "--json" else []))
    assert (result.code, result.err) == (2, "")
    assert f"{config_file}:1:" in result.out
    assert "retrry" in result.out
    if form == "--json":
        assert {(one["area"], one["status"]) for one in result.document["findings"]} == {("config", "fail")}


async def test_notes_are_warnings_and_an_open_key_is_reported_once(tmp_path: Path) -> None:
    async with NameServer(ZONE) as server, Upstream() as upstream:
        config_file = configured(tmp_path, upstream_keys(upstream), limits={"recipients": 10})
        (tmp_path / "s1.pem").chmod(0o644)
        result = await doctor(config_file, server, "--json")
    about = [one for one in result.document["findings"] if "s1.pem" in json.dumps(one)]
    assert [(one["area"], one["status"]) for one in about] == [("files", "warn")]


@pytest.mark.parametrize("server", ["nonsense", "127.0.0.1:0", ":53"])
def test_an_invalid_name_server_is_a_usage_error(server: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--dns", server])
    assert left.value.code == 2


@pytest.mark.fresh
async def test_a_running_relay_is_reported_and_not_disturbed(tmp_path: Path) -> None:
    async with Upstream() as upstream, NameServer(ZONE) as server:
        http = f"unix:{tmp_path}/http.sock"
        config_file = configured(tmp_path, upstream_keys(upstream), http={"address": http})
        async with RelayProcess(config_file) as relay:
            result = await doctor(config_file, server, "--json")
            found = [(one["status"], one["text"]) for one in result.document["findings"] if one["area"] == "relay"]
            assert found == [("ok", f"a relay runs on this store (pid {relay.pid})"), ("ok", "mail is accepted")]
            about = [one["text"] for one in result.document["findings"] if one["text"].startswith("sessions: ")]
            kept = "2 to 10 warm sessions (warm: auto, 1 and 1 ahead; more as bursts need them, up to sessions.max)"
            now = "2 (auto: recent bursts needed 1 at once, and 1 is ahead)"
            assert about == [f"sessions: lane otp keeps {kept}; the running relay {now}"]
            assert await relay.terminate() == 0


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, '{"ready": true, "reasons": []}', ("ok", "mail is accepted")),
        (503, '{"ready": false, "reasons": ["draining", "disk"]}', ("fail", "no mail is accepted: draining, disk")),
        (404, "{}", ("fail", "no mail is accepted: HTTP 404")),
        (
            200,
            "<html>",
            ("warn", "no proper answer (the body is not JSON): the running relay may have another configuration"),
        ),
    ],
)
async def test_the_readiness_of_a_running_relay_is_reported(
    tmp_path: Path, status: int, body: str, expected: tuple[str, str]
) -> None:
    async with Readyz(status, body) as port:
        found = await _of_service(tmp_path, f"127.0.0.1:{port}")
    assert [(one.status, one.text) for one in found][1:] == [expected]


async def test_a_relay_on_another_address_is_a_warning(tmp_path: Path) -> None:
    async with Readyz(200, "{}") as port:
        pass
    found = await _of_service(tmp_path, f"127.0.0.1:{port}")
    assert [one.status for one in found] == ["ok", "warn"]


@pytest.mark.parametrize("address", ["127.0.0.1:0", "systemd:http"])
async def test_an_address_that_is_not_in_the_configuration_is_unknown(tmp_path: Path, address: str) -> None:
    assert [one.status for one in await _of_service(tmp_path, address)] == ["ok", "unknown"]


async def test_a_store_without_a_relay_is_reported_so(tmp_path: Path) -> None:
    config = load(write_config(tmp_path, {"esp": {"host": "127.0.0.1", "port": 1, "tls": "none"}}), {}).config
    (before,) = await service.check(config)
    descriptor = files.lock(config.store)
    os.close(descriptor)
    (after,) = await service.check(config)
    assert before.text == after.text == "no relay runs on this store"


async def _of_service(folder: Path, address: str) -> Any:
    """With the store held as a relay holds it."""
    upstream = {"host": "127.0.0.1", "port": 1, "tls": "none"}
    config = load(
        write_config(folder, {"esp": upstream}, http={"address": address, "token": "hunter2-token"}), {}
    ).config
    descriptor = files.lock(config.store)
    try:
        return await service.check(config)
    finally:
        os.close(descriptor)
