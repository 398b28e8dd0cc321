"""The days that the certificates of the relay's own listeners are good for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from relay.config.load import load
from relay.doctor import certificates as of_listeners
from relay.doctor.examine import examine
from relay.doctor.finding import Finding
from tests.support.relay import write_config
from tests.support.tls import Certificate, Certificates

DAY_S = 86400.0
NOWHERE = {"host": "127.0.0.1", "port": 1, "tls": "none"}


def with_listener(folder: Path, used: Certificate, **keys: object) -> Path:
    tls = {"tls": "starttls", "cert_file": str(used.cert_file), "key_file": str(used.key_file)}
    return write_config(folder, {"esp": NOWHERE}, listen=[{"address": "127.0.0.1:2525", **tls}], **keys)


def found_in(path: Path, later_s: float = 0.0) -> list[Finding]:
    return of_listeners.check(load(path, {}).config, time.time() + later_s)


@pytest.mark.parametrize(
    ("later_days", "status", "ends"),
    [
        (0, "ok", "certificate good for 29 days"),
        (15, "ok", "good for 14 days"),
        (16, "warn", "good for 13 days"),
        (28, "warn", "good for 1 day"),
        (31, "fail", "certificate expired 2 days ago: clients refuse it"),
        (-61, "fail", "certificate not valid yet: clients refuse it"),
    ],
)
def test_days_are_counted_and_few_of_them_are_a_warning(
    tmp_path: Path, certificates: Certificates, later_days: float, status: str, ends: str
) -> None:
    (found,) = found_in(with_listener(tmp_path, certificates.good), later_days * DAY_S)
    assert (found.id, found.subject, found.status) == ("listener-certificate", "127.0.0.1:2525", status)
    assert found.text.endswith(ends)
    assert bool(found.hint) == (status != "ok")


def test_the_webhooks_listener_has_a_certificate_too(tmp_path: Path, certificates: Certificates) -> None:
    used = {"cert_file": str(certificates.good.cert_file), "key_file": str(certificates.good.key_file)}
    esp = {**NOWHERE, "webhook": {"kind": "postmark", "secret": "user:hunter2"}}
    path = write_config(tmp_path, {"esp": esp}, webhooks={"address": "127.0.0.1:8026", **used})
    assert [(one.subject, one.status) for one in found_in(path)] == [("127.0.0.1:8026", "ok")]


def test_a_listener_in_clear_has_no_finding(tmp_path: Path) -> None:
    assert found_in(write_config(tmp_path, {"esp": NOWHERE})) == []


def test_of_a_chain_the_certificate_that_ends_first_counts(tmp_path: Path, certificates: Certificates) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certificates.good.cert_file.read_bytes() + certificates.expired.cert_file.read_bytes())
    (found,) = found_in(with_listener(tmp_path, Certificate(chain, certificates.good.key_file)))
    assert (found.status, "certificate expired" in found.text) == ("fail", True)


def test_a_certificate_that_is_gone_meanwhile_is_unknown(tmp_path: Path, certificates: Certificates) -> None:
    copy = tmp_path / "cert.pem"
    copy.write_bytes(certificates.good.cert_file.read_bytes())
    config = load(with_listener(tmp_path, Certificate(copy, certificates.good.key_file)), {}).config
    copy.write_text("no certificate")
    assert [one.status for one in of_listeners.check(config, time.time())] == ["unknown"]
    copy.unlink()
    assert [one.status for one in of_listeners.check(config, time.time())] == ["unknown"]


async def test_an_expired_certificate_is_reported_once(tmp_path: Path, certificates: Certificates) -> None:
    found = await examine(with_listener(tmp_path, certificates.expired), {})
    about = [one for one in found if "certificate expired" in one.text]
    assert [(one.id, one.status) for one in about] == [("listener-certificate", "fail")]
