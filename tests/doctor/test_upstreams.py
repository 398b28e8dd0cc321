"""Upstreams are spoken to over real sockets, and left with QUIT."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from relay.config.load import load
from relay.doctor import upstreams
from relay.doctor.finding import Finding
from tests.support.relay import upstream_keys, write_config
from tests.support.tls import Certificates
from tests.support.upstream import DEFAULT_EXTENSIONS, Close, Hang, Upstream

AUTH = {"relay": "hunter2-password"}
DAY_S = 86400.0


async def examined(
    folder: Path, upstream: Upstream, certificates: Certificates | None = None, **keys: object
) -> list[Finding]:
    """The findings about the upstream itself."""
    path = write_config(folder, {"esp": upstream_keys(upstream, certificates, **keys)})
    found = await upstreams.check(load(path, {}).config, time.time())
    return [finding for finding in found if not finding.text.startswith("sessions: ")]


def told(findings: list[Finding]) -> dict[str, str]:
    """Status by the beginning of the text."""
    return {finding.text.split(" ")[0].rstrip(":"): finding.status for finding in findings}


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_an_upstream_in_order_is_all_well_and_sent_no_mail(
    tmp_path: Path, certificates: Certificates, tls: str
) -> None:
    kind: object = tls
    assert kind in ("starttls", "implicit")
    async with Upstream(
        tls="starttls" if tls == "starttls" else "implicit", certificate=certificates.good, auth=AUTH
    ) as upstream:
        found = await examined(tmp_path, upstream, certificates)
        await upstream.wait_until(lambda: upstream.open == 0)
    assert told(found) == {"greeting": "ok", "TLS": "ok", "AUTH": "ok", "offers": "ok", "burst": "ok", "a": "ok"}
    by_start = {finding.text.split(" ")[0]: finding.text for finding in found}
    assert ("STARTTLS" in by_start["greeting:"]) == (tls == "starttls")
    assert by_start["TLS:"].startswith("TLS: TLSv1.3 TLS_")
    assert by_start["TLS:"].endswith("certificate good for 29 days")
    assert by_start["AUTH:"] == "AUTH: accepted"
    assert by_start["offers"] == "offers PIPELINING, SIZE 35882577, 8BITMIME, SMTPUTF8, DSN"
    (session,) = upstream.sessions
    assert session.verbs[-2:] == ["RSET", "QUIT"]
    assert "MAIL" not in session.verbs


async def test_a_certificate_near_its_end_is_a_warning(tmp_path: Path, certificates: Certificates) -> None:
    async with Upstream(tls="implicit", certificate=certificates.good) as upstream:
        config = load(write_config(tmp_path, {"esp": upstream_keys(upstream, certificates)}), {}).config
        found = await upstreams.check(config, time.time() + 20 * DAY_S)
    (tls,) = [finding for finding in found if finding.text.startswith("TLS")]
    assert (tls.status, tls.text.endswith("good for 9 days")) == ("warn", True)


async def test_a_refused_connection_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        await upstream.pause()
        (finding,) = await examined(tmp_path, upstream)
    assert finding.status == "fail"
    assert finding.text == f"127.0.0.1:{upstream.port}: connect: connection refused"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({"greeting": "554 5.7.1 go away"}, "greeting: 554 5.7.1 go away"),
        ({"greeting": Close()}, "connect: "),
        ({"ehlo": "550 5.7.1 not with that name", "helo": "550 5.7.1 not with that name"}, "ehlo: 550 5.7.1"),
        ({"auth": "535 5.7.8 no such account"}, "auth: 535 5.7.8 no such account"),
    ],
)
async def test_a_session_that_can_not_be_opened_names_the_phase_and_the_reply(
    tmp_path: Path, script: dict[str, object], said: str
) -> None:
    async with Upstream(auth=AUTH, script=script) as upstream:  # type: ignore[arg-type]
        (finding,) = await examined(tmp_path, upstream)
    assert finding.status == "fail"
    assert said in finding.text
    assert finding.hint.startswith("check: ")


@pytest.mark.parametrize("broken", ["expired", "wrong_host", "self_signed"])
async def test_a_certificate_that_does_not_verify_is_a_failure(
    tmp_path: Path, certificates: Certificates, broken: str
) -> None:
    async with Upstream(tls="implicit", certificate=getattr(certificates, broken)) as upstream:
        (finding,) = await examined(tmp_path, upstream, certificates)
    assert (finding.id, finding.status) == ("upstream-certificate", "fail")
    assert "tls: certificate not trusted" in finding.text


async def test_starttls_that_is_not_offered_is_a_failure(tmp_path: Path, certificates: Certificates) -> None:
    async with Upstream() as upstream:
        (finding,) = await examined(tmp_path, upstream, certificates, tls="starttls")
    assert (finding.status, "STARTTLS is not offered" in finding.text) == ("fail", True)


async def test_a_silent_upstream_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "OPEN_WITHIN_S", 0.2)
    async with Upstream(script={"greeting": Hang()}) as upstream:
        (finding,) = await examined(tmp_path, upstream)
    assert (finding.status, "no answer in time" in finding.text) == ("fail", True)


@pytest.mark.parametrize("encoded", [False, True])
async def test_a_credential_that_the_upstream_quotes_is_not_repeated(tmp_path: Path, encoded: bool) -> None:
    secret = base64.b64encode(b"\0relay\0hunter2-password").decode() if encoded else "hunter2-password of relay"
    async with Upstream(auth=AUTH, script={"auth": f"535 5.7.8 can't take {secret}"}) as upstream:
        (finding,) = await examined(tmp_path, upstream)
    assert "535 5.7.8 can't take ***" in finding.text
    assert "hunter2" not in finding.text
    assert secret not in finding.text


@pytest.mark.parametrize(
    ("extensions", "said"),
    [
        ([one for one in DEFAULT_EXTENSIONS if one != "PIPELINING"], "no PIPELINING: a code needs 4"),
        (
            [*(one for one in DEFAULT_EXTENSIONS if "SIZE" not in one), "SIZE 10000000"],
            "SIZE 10000000 is less than the 30",
        ),
        ([one for one in DEFAULT_EXTENSIONS if one != "8BITMIME"], "no 8BITMIME"),
    ],
)
async def test_what_an_upstream_lacks_is_a_warning_with_its_cost(
    tmp_path: Path, extensions: list[str], said: str
) -> None:
    async with Upstream(extensions) as upstream:
        found = await examined(tmp_path, upstream)
    (warning,) = [finding for finding in found if finding.status != "ok"]
    assert warning.status == "warn"
    assert said in warning.text
    assert warning.hint


async def test_chunking_alone_does_not_make_up_for_pipelining(tmp_path: Path) -> None:
    async with Upstream(["CHUNKING", "SIZE", "8BITMIME"]) as upstream:
        found = await examined(tmp_path, upstream)
    (warning,) = [finding for finding in found if finding.status != "ok"]
    assert warning.text.startswith("no PIPELINING: a code needs 4 round trips")


@pytest.mark.parametrize("answer", ["500 5.5.2 what?", Close()])
async def test_a_session_that_can_not_be_reset_is_a_failure(tmp_path: Path, answer: object) -> None:
    async with Upstream(script={"rset": answer}) as upstream:  # type: ignore[dict-item]
        found = await examined(tmp_path, upstream)
    assert told(found)["greeting"] == "fail"


async def test_each_upstream_is_reported_also_beside_a_dead_one(tmp_path: Path) -> None:
    async with Upstream() as good, Upstream(script={"greeting": "421 4.3.2 closed for today"}) as closed:
        config = load(write_config(tmp_path, {"good": good, "closed": closed}), {}).config
        found = await upstreams.check(config, time.time())
    assert [(one.subject, one.status) for one in found] == [
        *[("good", "ok")] * 7,
        ("closed", "fail"),
        ("closed", "ok"),
    ]
