"""The mailbox provider behind a recipient's domain: a well-known name, or the domain itself."""

from __future__ import annotations

from relay.mail.address import domain_of

_COUNTRIES = (  # noqa: SIM905
    "ae at be bg ca ch cl cn co.id co.il co.in co.jp co.kr co.nz co.th co.uk co.za com.ar com.au com.br com.co"
    " com.hk com.mx com.my com.pe com.ph com.pl com.sg com.tr com.tw com.ua com.ve com.vn cz de dk ee es fi fr gr"
    " hk hr hu ie in it jp lt lu lv nl no ph pl pt ro rs ru se sg si sk tw ua"
).split()


def _in_countries(*names: str) -> list[str]:
    """Each name below .com and below each country."""
    return [f"{name}.{tld}" for name in names for tld in ("com", *_COUNTRIES)]


_DOMAINS = {
    "gmail": ["gmail.com", "googlemail.com"],
    "outlook": [*_in_countries("outlook", "hotmail", "live"), "msn.com", "passport.com", "windowslive.com"],
    # yahoo.co.jp is LY Corporation's, on servers of its own.
    "yahoo": [*({*_in_countries("yahoo")} - {"yahoo.co.jp"}), "ymail.com", "rocketmail.com", "myyahoo.com"],
    "icloud": ["icloud.com", "me.com", "mac.com", "privaterelay.appleid.com"],
    "aol": [*_in_countries("aol"), "aim.com", "netscape.net", "verizon.net"],
    "gmx": [f"gmx.{tld}" for tld in ("net", "de", "at", "ch", "com", "org", "eu", "info", "us", "fr", "co.uk")],
    "webde": ["web.de"],
    "proton": ["proton.me", "protonmail.com", "protonmail.ch", "pm.me"],
    "zoho": [f"{name}.{tld}" for name in ("zoho", "zohomail") for tld in ("com", "eu", "in", "com.au", "jp", "sa")],
    "fastmail": ["fastmail.com", "fastmail.fm", "fastmail.net", "fastmail.org", "fastmail.us", "fastmail.co.uk"],
    "mailru": ["mail.ru", "bk.ru", "inbox.ru", "list.ru", "internet.ru", "mail.ua"],
    "yandex": [
        *(f"yandex.{tld}" for tld in ("ru", "com", "by", "kz", "ua", "uz", "fr", "com.tr")),
        "ya.ru",
        "narod.ru",
    ],
    "qq": ["qq.com", "vip.qq.com", "foxmail.com"],
    "netease": ["163.com", "126.com", "188.com", "yeah.net", "vip.163.com", "vip.126.com", "vip.188.com"],
    "naver": ["naver.com"],
}
_PROVIDER_OF = {domain: name for name, domains in _DOMAINS.items() for domain in domains}
KNOWN_PROVIDERS: frozenset[str] = frozenset(_DOMAINS)
"""the mailbox providers that have a name: a bounded set of values for a metric's label"""


_MX = {
    "google.com": "gmail",
    "googlemail.com": "gmail",
    "outlook.com": "outlook",
    "mx.microsoft": "outlook",
    "mx-aol.mail.gm0.yahoodns.net": "aol",
    "yahoodns.net": "yahoo",
    "icloud.com": "icloud",
    "zoho.com": "zoho",
    "zoho.eu": "zoho",
    "zoho.in": "zoho",
    "zoho.com.au": "zoho",
    "zohomail.com": "zoho",
    "messagingengine.com": "fastmail",
    "protonmail.ch": "proton",
    "proton.ch": "proton",
    "gmx.net": "gmx",
    "web.de": "webde",
    "yandex.net": "yandex",
    "yandex.ru": "yandex",
    "mail.ru": "mailru",
    "qq.com": "qq",
    "netease.com": "netease",
    "163.com": "netease",
    "naver.com": "naver",
    "worksmobile.com": "naver",
}
"""by the end of an MX host's name"""
MOST_LEARNT = 20_000
"""domains of which a process remembers the provider"""


def provider_of_mx(host: str) -> str | None:
    """The provider that an MX host (in lower case) is of; None: none of the known ones."""
    labels = host.rstrip(".").split(".")
    ends = (".".join(labels[at:]) for at in range(len(labels)))
    return next((_MX[end] for end in ends if end in _MX), None)


class Providers:
    """The providers of addresses, with what MX records told of other domains. Its memory is bounded."""

    def __init__(self) -> None:
        self._learnt: dict[str, str] = {}

    def learn(self, domain: str, provider: str) -> None:
        """`provider`: one of KNOWN_PROVIDERS."""
        self._learnt.pop(domain, None)
        if len(self._learnt) >= MOST_LEARNT:
            del self._learnt[next(iter(self._learnt))]
        self._learnt[domain] = provider

    def of(self, address: str) -> str:
        """The mailbox provider of an address: one of KNOWN_PROVIDERS, else its domain."""
        domain = domain_of(address)
        return _PROVIDER_OF.get(domain) or self._learnt.get(domain, domain)


def provider(address: str) -> str:
    """The mailbox provider of an address: one of KNOWN_PROVIDERS, else its domain."""
    return provider_of_domain(domain_of(address))


def provider_of_domain(domain: str) -> str:
    """The provider behind a domain in lower case. A provider's name is returned as it is."""
    return _PROVIDER_OF.get(domain, domain)


def provider_label(provider: str) -> str:
    """The provider as a metric's label: one of KNOWN_PROVIDERS, or `other`. Older store files have a provider's main
    domain in the place of its name."""
    name = provider_of_domain(provider)
    return name if name in KNOWN_PROVIDERS else "other"
