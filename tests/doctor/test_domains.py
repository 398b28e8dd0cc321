"""Keys, SPF and DMARC against a name server that is asked over the wire."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.config.model import DkimDomain, DkimKey
from relay.doctor import domains
from relay.doctor.finding import Finding
from relay.doctor.resolver import Resolver, Texts, Unknown
from relay.mail.dkim import Signer, dns_record
from tests.doctor.nameserver import Entry, NameServer
from tests.mail.material import ed25519_key, keys, pem, rsa_key

NOW = 1_740_819_907
GOOD: dict[str, Entry] = {
    "s1._domainkey.auth.example.com": dns_record(rsa_key()),
    "e1._domainkey.auth.example.com": dns_record(ed25519_key()),
    "auth.example.com": ["v=spf1 include:spf.esp.example ~all", "another=thing"],
    "spf.esp.example": "v=spf1 a:mail.esp.example ip4:192.0.2.0/24 -all",
    "_dmarc.auth.example.com": "v=DMARC1; p=reject",
}


async def examined(zone: dict[str, Entry], *selectors: str, lookup_s: float = 3.0) -> list[Finding]:
    """What is found about auth.example.com, signed with these keys, where DNS says `zone`."""
    entries, pems = [], {}
    for selector, key in keys(*(selectors or ("s1",))).items():
        path = Path(f"{selector}.pem")
        pems[path] = pem(key)
        entries.append(DkimKey(selector=selector, key_file=path))
    configured = (DkimDomain(domain="Auth.example.com", keys=tuple(entries)),)
    async with NameServer(zone) as server:
        resolver = Resolver(server.address, lookup_s=lookup_s)
        return await domains.check(configured, Signer(configured, pems), resolver, NOW)


def of(findings: list[Finding], area: str) -> list[tuple[str, str]]:
    return [(finding.status, finding.text) for finding in findings if finding.area == area]


async def test_a_properly_published_domain_is_all_well() -> None:
    found = await examined(GOOD, "s1", "e1")
    assert [(one.area, one.subject, one.status) for one in found] == [
        ("dkim", "s1._domainkey.auth.example.com", "ok"),
        ("dkim", "e1._domainkey.auth.example.com", "ok"),
        ("spf", "auth.example.com", "ok"),
        ("dmarc", "auth.example.com", "ok"),
    ]
    assert "a probe signed with it verifies" in found[0].text
    assert found[2].text == "includes spf.esp.example; 2 of 10 look-ups; ~all"
    assert "p=reject, adkim=r" in found[3].text


async def test_a_missing_key_is_a_failure_with_the_record_to_publish() -> None:
    found = await examined({**GOOD, "s1._domainkey.auth.example.com": ()})
    key = found[0]
    assert (key.status, "no key is published" in key.text) == ("fail", True)
    assert key.hint == f"publish as TXT at s1._domainkey.auth.example.com: {dns_record(rsa_key())}"


@pytest.mark.parametrize(
    ("published", "status", "said"),
    [
        ("v=DKIM1; p=", "fail", "revoked"),
        (dns_record(ed25519_key()), "fail", "k=ed25519 is published"),
        ([dns_record(rsa_key()), "v=DKIM1; p="], "fail", "2 TXT records"),
        (dns_record(rsa_key()) + "; t=y", "warn", "testing"),
        # Ours is there, and still a verifier that compares letter by letter doesn't know what it is.
        (dns_record(rsa_key()).replace("k=rsa", "k=RSA"), "fail", "a probe signed with it doesn't verify"),
    ],
)
async def test_a_key_that_verifiers_refuse_is_reported(published: Entry, status: str, said: str) -> None:
    (told,) = of(await examined({**GOOD, "s1._domainkey.auth.example.com": published}), "dkim")
    assert told[0] == status
    assert said in told[1]


async def test_ed25519_alone_is_a_warning_because_many_receivers_do_not_verify_it() -> None:
    told = of(await examined(GOOD, "e1"), "dkim")
    assert [status for status, _ in told] == ["ok", "warn"]
    assert "only Ed25519" in told[1][1]


@pytest.mark.parametrize("silence", ["SILENT", "SERVFAIL"])
async def test_without_an_answer_all_checks_are_unknown(silence: str) -> None:
    names = ("s1._domainkey.auth.example.com", "auth.example.com", "_dmarc.auth.example.com")
    found = await examined({**GOOD, **dict.fromkeys(names, silence)}, lookup_s=0.3)
    assert [(one.area, one.status) for one in found] == [("dkim", "unknown"), ("spf", "unknown"), ("dmarc", "unknown")]


async def test_with_no_domain_to_sign_for_the_doctor_warns() -> None:
    (finding,) = await domains.check((), Signer((), {}), Resolver(("127.0.0.1", 9)), NOW)
    assert (finding.area, finding.status) == ("dkim", "warn")


def _chain(length: int) -> dict[str, Entry]:
    """SPF records that include one another, `length` look-ups deep."""
    chain: dict[str, Entry] = {f"n{n}.example": f"v=spf1 include:n{n + 1}.example -all" for n in range(1, length)}
    return {"auth.example.com": "v=spf1 include:n1.example -all", f"n{length}.example": "v=spf1 -all", **chain}


SPF: list[tuple[dict[str, Entry], str, str]] = [
    (_chain(10), "ok", "10 of 10 look-ups"),
    (_chain(11), "fail", "11 look-ups"),
    ({"auth.example.com": "v=spf1 include:auth.example.com -all"}, "fail", "more than 30 look-ups"),
    ({"auth.example.com": ["v=spf1 -all", "v=spf1 ~all"]}, "fail", "2 SPF records"),
    ({"auth.example.com": "something else"}, "warn", "no SPF record"),
    ({"auth.example.com": "v=spf1 ip4:nonsense -all"}, "fail", "names no IP network"),
    ({"auth.example.com": "v=spf1 +all"}, "warn", "every machine may send"),
    ({"auth.example.com": "v=spf1 include:gone.example -all"}, "fail", "gone.example has no SPF record"),
    ({"auth.example.com": "v=spf1 redirect=spf.esp.example"}, "ok", "redirects to spf.esp.example; 2 of 10 look-ups"),
    ({"auth.example.com": "v=spf1 include:%{d}.example -all"}, "ok", "1 of 10"),
    ({"auth.example.com": "v=spf1 include:b.example -all", "b.example": "SERVFAIL"}, "unknown", "b.example"),
    ({"auth.example.com": "v=spf1 include:b.example -all", "b.example": "v=spf1 foo"}, "fail", "no mechanism"),
]


@pytest.mark.parametrize(("zone", "status", "said"), SPF)
async def test_spf_is_followed_as_receivers_follow_it(zone: dict[str, Entry], status: str, said: str) -> None:
    (told,) = of(await examined({**GOOD, **zone}), "spf")
    assert told[0] == status
    assert said in told[1]


DMARC: list[tuple[dict[str, Entry], str, str]] = [
    ({"_dmarc.auth.example.com": ()}, "warn", "no policy"),
    ({"_dmarc.auth.example.com": "v=DMARC1; p=none"}, "warn", "forged mail is still delivered"),
    ({"_dmarc.auth.example.com": "v=DMARC1; p=reject; adkim=s"}, "ok", "not with domains below it"),
    ({"_dmarc.auth.example.com": "v=DMARC1; p=forbid"}, "fail", "p=forbid"),
    ({"_dmarc.auth.example.com": ["v=DMARC1; p=none", "v=DMARC1; p=reject"]}, "fail", "2 records"),
    ({"_dmarc.auth.example.com": (), "_dmarc.example.com": "v=DMARC1; p=reject"}, "ok", "p=reject of example.com"),
    (
        {"_dmarc.auth.example.com": (), "_dmarc.example.com": "v=DMARC1; p=reject; sp=none"},
        "warn",
        "sp=none of example.com",
    ),
    ({"_dmarc.auth.example.com": (), "_dmarc.example.com": "SERVFAIL"}, "unknown", "_dmarc.example.com"),
    ({"_dmarc.example.com": "SERVFAIL"}, "ok", "p=reject"),
]


@pytest.mark.parametrize(("zone", "status", "said"), DMARC)
async def test_the_dmarc_policy_that_applies_is_reported(zone: dict[str, Entry], status: str, said: str) -> None:
    (told,) = of(await examined({**GOOD, **zone}), "dmarc")
    assert told[0] == status
    assert said in told[1]


async def test_an_answer_too_large_for_a_datagram_is_fetched_over_tcp() -> None:
    many = [f"verification-{n}={'x' * 200}" for n in range(10)]
    async with NameServer({"example.com": many}) as server:
        answer = await Resolver(server.address).txt("example.com")
        assert server.asked == {("udp", "example.com"): 1, ("tcp", "example.com"): 1}
    assert answer == Texts(tuple(sorted(many)))


async def test_a_name_is_asked_for_once() -> None:
    async with NameServer({"example.com": "v=spf1 -all"}) as server:
        resolver = Resolver(server.address)
        assert await resolver.txt("example.com") == await resolver.txt("example.com") == Texts(("v=spf1 -all",))
        assert server.asked["udp", "example.com"] == 1


async def test_all_look_ups_together_have_an_end() -> None:
    async with NameServer({"example.com": "v=spf1 -all"}) as server:
        assert isinstance(await Resolver(server.address, all_s=0.0).txt("example.com"), Unknown)


async def test_a_name_server_that_denies_everything_is_not_believed() -> None:
    async with NameServer({}) as closed, NameServer({"a.example": "x"}) as open_:
        denied = await Resolver(closed.address).txt("_dmarc.auth.example")
        assert isinstance(denied, Unknown)
        assert "doesn't know .example" in denied.reason
        assert await Resolver(open_.address).txt("_dmarc.auth.example") == Texts(())


@pytest.mark.parametrize("name", ["x" * 64 + ".example", "a..b", "a" * 300, "é.example", "\x00", ""])
async def test_an_invalid_name_is_unknown(name: str) -> None:
    async with NameServer({}) as server:
        assert isinstance(await Resolver(server.address, lookup_s=0.5).txt(name), Unknown | Texts)
