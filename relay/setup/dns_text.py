"""dns.txt: the records to publish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from relay.mail.dkim import dns_record
from relay.mail.private_key import PrivateKey
from relay.providers.registry import provider_of
from relay.setup.dkim_keys import zone_line
from relay.setup.plan import LOCAL, OTHER, Plan

SPF_OF: Mapping[str, str] = {
    "postmark": "spf.mtasv.net",
    "sendgrid": "sendgrid.net",
    "ses": "amazonses.com",
    "mailgun": "mailgun.org",
    "brevo": "spf.brevo.com",
    "mailjet": "spf.mailjet.com",
    "mandrill": "spf.mandrillapp.com",
    "azure": "spf.protection.outlook.com",
    "microsoft365": "spf.protection.outlook.com",
    "google": "_spf.google.com",
    "smtp2go": "spf.smtp2go.com",
}
"""What a provider's customers include, by provider. Of the others nothing is known here; none was tried."""


def dns_text(plan: Plan, keys: Mapping[str, PrivateKey]) -> str:
    """The records as lines of a zone file. `keys`: by selector."""
    parts = (_dkim(plan, keys), _spf(plan), _dmarc(plan))
    return "\n".join("\n".join(part) + "\n" for part in parts)


def _dkim(plan: Plan, keys: Mapping[str, PrivateKey]) -> Iterator[str]:
    yield "; DKIM: receivers check the relay's signatures with these. Publish both."
    for selector, key in keys.items():
        yield zone_line(plan.domain, selector, dns_record(key))


def _spf(plan: Plan) -> Iterator[str]:
    includes, others = [], []
    for one in plan.accounts:
        provider = provider_of(one.preset)
        known = SPF_OF.get(provider.name) if provider is not None else None
        if known is not None:
            includes.append(f"include:{known}")
        elif one.preset == OTHER:
            others.append(f"the servers of {one.name}: ip4:ADDRESS or include:DOMAIN")
        elif one.preset != LOCAL:
            others.append(f"what {one.name} says in its console")
    yield "; SPF: which servers may send for the domain. A domain has one such record: if it is there, add to it."
    yield "; It counts for the envelope sender's domain. Where the provider has one of its own there (a return path),"
    yield "; its console has further records for you. Compare the include below with what is written there."
    yield from (f"; Add {one}." for one in others)
    text = " ".join(["v=spf1", *dict.fromkeys(includes), "~all"])
    yield f'{"" if includes else "; "}{plan.domain}. IN TXT "{text}"'


def _dmarc(plan: Plan) -> Iterator[str]:
    yield "; DMARC: what receivers do with mail that fails both. Set p=reject once the reports are clean."
    yield f'_dmarc.{plan.domain}. IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@{plan.domain}"'
