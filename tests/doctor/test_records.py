"""DNS records about mail, as published by careful and careless hands."""

from __future__ import annotations

import base64
import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from relay.doctor.records import (
    BadRecord,
    dmarc,
    dmarc_domains,
    governing,
    is_dmarc,
    is_spf,
    key_remarks,
    spf,
    tags,
)
from relay.mail.dkim import dns_record
from tests.mail.material import PrivateKey, ed25519_key, rsa_key

OURS = dns_record(rsa_key())
P_OURS = tags(OURS)["p"]
PKCS1 = base64.b64encode(rsa_key().public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)).decode()
ED_DER = ed25519_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
STRANGERS = dns_record(rsa.generate_private_key(65537, 1024))


@pytest.mark.parametrize(
    ("key", "record"),
    [
        (rsa_key(), OURS),
        (ed25519_key(), dns_record(ed25519_key())),
        (rsa_key(), f"p={P_OURS}"),
        (rsa_key(), f"v=DKIM1;p={P_OURS[:80]} {P_OURS[80:]};"),
        (rsa_key(), f"v=DKIM1; h=sha1:sha256; s=email; t=s; n=a note; p={P_OURS}"),
        (rsa_key(), f"v=DKIM1; k=rsa; p={PKCS1}"),
        (rsa_key(), f"v=DKIM1; s=*; k=rsa; p={P_OURS}"),
    ],
)
def test_a_record_with_our_public_key_has_no_remarks(key: PrivateKey, record: str) -> None:
    assert list(key_remarks([record], key)) == []


@pytest.mark.parametrize(
    ("key", "record", "status", "said"),
    [
        (rsa_key(), STRANGERS, "fail", "not that of the key file"),
        (ed25519_key(), dns_record(ed25519.Ed25519PrivateKey.generate()), "fail", "not that of the key file"),
        (rsa_key(), "v=DKIM1; p=", "fail", "revoked"),
        (rsa_key(), "v=DKIM1; k=rsa", "fail", "no p="),
        (rsa_key(), f"v=DKIM1; p={P_OURS[:101]}", "fail", "base64"),
        (rsa_key(), f"v=DKIM1; p={P_OURS[:100]}", "fail", "cut short"),
        (rsa_key(), f"v=DKIM1; p={base64.b64encode(ED_DER).decode()}", "fail", "no RSA key"),
        (ed25519_key(), f"k=ed25519; p={base64.b64encode(ED_DER).decode()}", "fail", "44 octets"),
        (ed25519_key(), OURS, "fail", "k=rsa is published, the key file holds ed25519"),
        (rsa_key(), f"v=DKIM2; p={P_OURS}", "fail", "v= must be DKIM1"),
        (rsa_key(), f"p={P_OURS}; v=DKIM1", "fail", "come first"),
        (rsa_key(), f"v=DKIM1; h=sha1; p={P_OURS}", "fail", "excludes sha256"),
        (rsa_key(), f"v=DKIM1; s=tlsrpt; p={P_OURS}", "fail", "isn't for mail"),
        (rsa_key(), f"v=DKIM1; t=y:s; p={P_OURS}", "warn", "testing"),
        (rsa_key(), f"v=DKIM1; p={P_OURS}; p={P_OURS}", "fail", "twice"),
        (rsa_key(), "v=spf1 -all", "fail", "v= must be DKIM1"),
        (rsa_key(), "google-site-verification", "fail", "tag=value"),
    ],
)
def test_a_record_that_verifiers_refuse_says_why(key: PrivateKey, record: str, status: str, said: str) -> None:
    (remark,) = key_remarks([record], key)
    assert remark.status == status
    assert said in remark.text


def test_two_records_at_one_selector_are_a_failure_even_when_one_is_ours() -> None:
    (remark,) = key_remarks([OURS, STRANGERS], rsa_key())
    assert (remark.status, "2 TXT records" in remark.text) == ("fail", True)


@pytest.mark.parametrize(
    ("text", "includes", "redirect", "lookups", "of_all"),
    [
        ("v=spf1 -all", (), None, 0, "-"),
        ("v=spf1", (), None, 0, ""),
        ("v=spf1 all", (), None, 0, "+"),
        ("v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ip4:192.0.2.7 ~all", (), None, 0, "~"),
        ("V=SPF1 Include:spf.a.example A MX:b.example/24 ?ALL", ("spf.a.example",), None, 3, "?"),
        ("v=spf1 include:a.example include:b.example -all", ("a.example", "b.example"), None, 2, "-"),
        ("v=spf1 a/24 mx//64 ptr exists:%{i}.c.example redirect=d.example", (), "d.example", 5, ""),
        ("v=spf1 redirect=d.example -all", (), None, 0, "-"),
        ("v=spf1 -all include:never.example", (), None, 0, "-"),
        ("v=spf1 exp=why.example unknown=thing -all", (), None, 0, "-"),
    ],
)
def test_spf_is_parsed_with_its_includes_and_look_ups(
    text: str, includes: tuple[str, ...], redirect: str | None, lookups: int, of_all: str
) -> None:
    assert is_spf(text)
    record = spf(text)
    assert (record.includes, record.redirect, record.lookups, record.all) == (includes, redirect, lookups, of_all)


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1 include -all",
        "v=spf1 include: -all",
        "v=spf1 ip4:example.com",
        "v=spf1 ip4:2001:db8::1",
        "v=spf1 ip6:192.0.2.1",
        "v=spf1 ip4: 192.0.2.1",
        "v=spf1 everybody",
        "v=spf1 -all:example.com",
        "v=spf1 =",
        "v=spf1 mx,a -all",
    ],
)
def test_spf_with_a_syntax_error_is_refused(text: str) -> None:
    with pytest.raises(BadRecord):
        spf(text)


@pytest.mark.parametrize("text", ["v=spf10 -all", "spf1", "v=spf1-all", "", "v=DMARC1; p=none"])
def test_other_texts_are_no_spf(text: str) -> None:
    assert not is_spf(text)


@pytest.mark.parametrize(
    ("text", "policy", "subdomains", "adkim", "aspf"),
    [
        ("v=DMARC1; p=reject", "reject", "reject", "r", "r"),
        ("v=DMARC1;p=Quarantine;sp=none;adkim=s;aspf=S;rua=mailto:a@b.example", "quarantine", "none", "s", "s"),
        ("v=DMARC1; p=none;", "none", "none", "r", "r"),
    ],
)
def test_dmarc_is_read_with_its_defaults(text: str, policy: str, subdomains: str, adkim: str, aspf: str) -> None:
    assert is_dmarc(text)
    record = dmarc(text)
    assert (record.policy, record.subdomains, record.adkim, record.aspf) == (policy, subdomains, adkim, aspf)


@pytest.mark.parametrize(
    "text",
    ["v=DMARC1", "v=DMARC1; p=block", "v=DMARC1; p=none; adkim=x", "v=DMARC1; p=none; sp=all", "v=DMARC1; reject"],
)
def test_dmarc_that_receivers_ignore_is_refused(text: str) -> None:
    assert is_dmarc(text)
    with pytest.raises(BadRecord):
        dmarc(text)


@pytest.mark.parametrize(
    ("domain", "asked"),
    [
        ("example.com", ("example.com",)),
        ("auth.example.com", ("auth.example.com", "example.com")),
        ("localhost", ("localhost",)),
        (
            "a.b.c.d.e.f.g.h.example.com",
            (
                "a.b.c.d.e.f.g.h.example.com", "d.e.f.g.h.example.com",
                "e.f.g.h.example.com", "f.g.h.example.com", "g.h.example.com", "h.example.com", "example.com",
            ),
        ),
    ],
)  # fmt: skip
def test_dmarc_is_looked_up_at_the_domain_and_above_it(domain: str, asked: tuple[str, ...]) -> None:
    assert dmarc_domains(domain) == asked


REJECT, NONE = "v=DMARC1; p=reject", "v=DMARC1; p=none"


@pytest.mark.parametrize(
    ("domain", "found", "applies"),
    [
        ("a.b.example.com", [], None),
        ("a.b.example.com", [("example.com", REJECT)], "example.com"),
        ("a.b.example.com", [("a.b.example.com", NONE), ("example.com", REJECT)], "a.b.example.com"),
        ("a.b.example.com", [("b.example.com", NONE), ("example.com", REJECT)], "example.com"),
        ("a.b.example.com", [("b.example.com", f"{NONE}; psd=n"), ("example.com", REJECT)], "b.example.com"),
        ("x.example.co.uk", [("example.co.uk", REJECT), ("co.uk", f"{NONE}; psd=y")], "example.co.uk"),
        ("x.example.co.uk", [("co.uk", f"{NONE}; psd=y")], "co.uk"),
        ("x.y.example.co.uk", [("y.example.co.uk", REJECT), ("co.uk", f"{NONE}; psd=y")], "co.uk"),
    ],
)
def test_the_domains_own_policy_applies_else_its_organisations(
    domain: str, found: list[tuple[str, str]], applies: str | None
) -> None:
    chosen = governing(domain, [(name, dmarc(text)) for name, text in found])
    assert (chosen and chosen[0]) == applies


RECORDISH = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(["v=DKIM1", "v=spf1", "p=", "=", ";", " ", ":", "k=rsa", "h=", "all", "ip4:", "a", "\x00"])
    ).map("".join),
)


@given(RECORDISH)
def test_any_record_gives_remarks_or_bad_record(text: str) -> None:
    assert [remark.text for remark in key_remarks([text], rsa_key())]
    for read in (spf, dmarc, tags):
        with contextlib.suppress(BadRecord):  # nothing else may come out
            read(text)
