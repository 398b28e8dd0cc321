"""The mailbox provider behind a recipient's domain, with the providers' other domains counted as one."""

from __future__ import annotations

from relay.mail.address import domain_of

_COUNTRIES = (  # noqa: SIM905
    "at be ca ch cl cn co.il co.jp co.kr co.nz co.th co.uk co.za com.ar com.au com.br com.mx com.my "
    "com.tr com.tw cz de dk es fi fr gr hu ie in it jp nl no ph pt se sg"
).split()
_MICROSOFT = [f"{name}.{tld}" for name in ("hotmail", "outlook", "live") for tld in ("com", *_COUNTRIES)]
_YAHOO = [f"yahoo.{tld}" for tld in ("com", "co.in", "co.id", "com.hk", "com.ph", "com.sg", "com.vn", *_COUNTRIES)]
_DOMAINS = {
    "gmail.com": ["googlemail.com"],
    "outlook.com": [*_MICROSOFT, "msn.com", "passport.com", "windowslive.com"],
    # yahoo.co.jp is LY Corporation's, on servers of its own.
    "yahoo.com": [*(name for name in _YAHOO if name != "yahoo.co.jp"), "ymail.com", "rocketmail.com", "myyahoo.com"],
    "yahoo.co.jp": ["ybb.ne.jp"],
    "aol.com": ["aim.com", "aol.de", "aol.fr", "aol.co.uk", "aol.it", "netscape.net", "verizon.net"],
    "icloud.com": ["me.com", "mac.com"],
    "proton.me": ["protonmail.com", "protonmail.ch", "pm.me"],
    "gmx.net": ["gmx.de", "gmx.at", "gmx.ch", "gmx.com", "gmx.org", "gmx.eu", "gmx.fr", "gmx.co.uk"],
    "web.de": [],
    "mail.com": [],
    "t-online.de": ["magenta.de"],
    "freenet.de": [],
    "fastmail.com": ["fastmail.fm"],
    "zoho.com": ["zohomail.com", "zoho.eu", "zohomail.eu"],
    "tutanota.com": ["tutanota.de", "tutamail.com", "tuta.io", "tuta.com", "keemail.me"],
    "mail.ru": ["bk.ru", "inbox.ru", "list.ru", "internet.ru"],
    "yandex.ru": ["yandex.com", "ya.ru", "yandex.by", "yandex.kz", "yandex.ua"],
    "qq.com": ["foxmail.com", "vip.qq.com"],
    "163.com": ["126.com", "yeah.net"],
    "naver.com": [],
    "daum.net": ["hanmail.net", "kakao.com"],
    "docomo.ne.jp": [],
    "orange.fr": ["wanadoo.fr"],
    "free.fr": [],
    "laposte.net": [],
    "libero.it": [],
    "seznam.cz": ["email.cz", "post.cz"],
    "wp.pl": ["o2.pl"],
    "onet.pl": ["op.pl", "poczta.onet.pl", "vp.pl"],
    "interia.pl": [],
    "uol.com.br": ["bol.com.br"],
    "comcast.net": [],
    "att.net": ["sbcglobal.net", "bellsouth.net"],
    "btinternet.com": [],
    "rediffmail.com": [],
}
_PROVIDER_OF = {alias: provider for provider, aliases in _DOMAINS.items() for alias in aliases if alias != provider}
KNOWN_PROVIDERS: frozenset[str] = frozenset(_DOMAINS)
"""the big mailbox providers: a bounded set of values for a metric's label"""


def provider(address: str) -> str:
    """The mailbox provider of an address: its domain, or the main domain of a known provider."""
    domain = domain_of(address)
    return _PROVIDER_OF.get(domain, domain)


def provider_label(provider: str) -> str:
    """The provider as a metric's label: one of KNOWN_PROVIDERS, or `other`."""
    return provider if provider in KNOWN_PROVIDERS else "other"
