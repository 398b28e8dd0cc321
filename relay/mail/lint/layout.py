"""Mistakes in parts, HTML and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from relay.mail.lint.domains import is_related
from relay.mail.lint.mail import MOST_CHARS, Mail
from relay.mail.lint.rules import LintFinding, found

GMAIL_CLIPS_AT_BYTES = 102_400
LARGE_HTML_BYTES = 40_960
_MOST_IMAGES = 2
_MOST_TARGETS = 2
_MOST_HIDDEN_CHARS = 150
"""a preview text has fewer"""
_LINK = re.compile(
    r"https?://(?:[^\s/@\"'<>]{0,200}@)?(\[[0-9a-f:.]{2,45}\]|[^\s/:?#\"'<>\[\])]{1,253})", re.IGNORECASE
)
_SHOWN_HOST = re.compile(r"(?:https?://|www\.)?((?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24})(?:[/:?#]\S*)?", re.IGNORECASE)
_MOST_SHOWN_CHARS = 500
_SHORTENERS = frozenset((
    "bit.ly", "t.co", "tinyurl.com", "goo.gl", "ow.ly", "is.gd", "buff.ly", "rebrand.ly", "cutt.ly", "rb.gy", "t.ly",
    "shorturl.at", "lnkd.in",
))  # fmt: skip
_SOCIAL = (
    "facebook.com", "instagram.com", "twitter.com", "x.com", "linkedin.com", "youtube.com", "tiktok.com",
    "pinterest.com", "t.me", "wa.me",
)  # fmt: skip
_FILE_NAMES = (".js", ".md", ".txt", ".pdf", ".html", ".php", ".json", ".py", ".zip", ".doc", ".docx", ".png", ".jpg")
_CAMPAIGN = re.compile(r"[?&](?:utm_\w+|mc_cid|campaign(?:_?id)?)=", re.IGNORECASE)


def layout(mail: Mail) -> Iterator[LintFinding]:
    yield from _parts(mail)
    yield from _html(mail)
    yield from _links(mail)


def _parts(mail: Mail) -> Iterator[LintFinding]:
    kinds = [part.kind for part in mail.parts]
    if "text/plain" not in kinds:
        yield found("no-text")
    elif not any(part.text.strip() for part in mail.parts if part.kind == "text/plain"):
        yield found("empty-text")
    attached = next((kind for kind in kinds if not kind.startswith(("text/", "image/", "multipart/"))), None)
    if attached is not None:
        yield found("attachment", kind=attached[:60])


def _html(mail: Mail) -> Iterator[LintFinding]:
    if mail.html is None:
        return
    size, markup = len(mail.html.body), mail.markup
    if size > GMAIL_CLIPS_AT_BYTES:
        yield found("clipped")
    elif size > LARGE_HTML_BYTES:
        yield found("large-html", size=size // 1024)
    if markup.images > _MOST_IMAGES:
        yield found("image-heavy", number=markup.images)
    if markup.pixels:
        yield found("tracking-pixel")
    if markup.forms:
        yield found("form")
    if markup.hidden_chars > _MOST_HIDDEN_CHARS:
        yield found("hidden-text", number=markup.hidden_chars)


def _links(mail: Mail) -> Iterator[LintFinding]:
    hosts = {
        host.lower().rstrip(".")
        for part in mail.parts
        if part.kind in ("text/plain", "text/html")
        for host in _LINK.findall(part.text[:MOST_CHARS])
    }
    hosts.discard("www.w3.org")  # the DTD and name space of an HTML mail are names, not links
    shortened = hosts & _SHORTENERS
    social = {host for host in hosts if any(is_related(host, one) for one in _SOCIAL)}
    mismatch = next((pair for pair in mail.markup.links if _is_mismatch(*pair)), ("", ""))
    targets = {target for _, target in mail.markup.links if _host(target)}
    if shortened:
        yield found("shortener", host=min(shortened))
    if social:
        yield found("social", host=min(social)[:60])
    if any(_CAMPAIGN.search(target) for target in targets):
        yield found("marketing-link")
    if mismatch[1]:
        yield found("link-mismatch", host=_host(mismatch[1])[:60])
    # A host has one finding.
    foreign = hosts - shortened - social - {_host(mismatch[1]), _shown_host(mismatch[0])}
    foreign = {host for host in foreign if not any(is_related(host, sender) for sender in mail.author_domains)}
    if mail.author_domains and foreign:
        yield found("foreign-link", hosts=", ".join(host[:60] for host in sorted(foreign)[:5]))
    if len(targets) > _MOST_TARGETS:
        yield found("many-links", number=len(targets))


def _host(target: str) -> str:
    """Empty where it is no link to the web."""
    try:
        return (urlsplit(target).hostname or "").lower() if target.lower().startswith(("http://", "https://")) else ""
    except ValueError:
        return ""


def _shown_host(text: str) -> str:
    shown = _SHOWN_HOST.fullmatch(text.strip()[:_MOST_SHOWN_CHARS])
    if shown is None or shown[1].lower().endswith(_FILE_NAMES):
        return ""
    return shown[1].lower()


def _is_mismatch(text: str, target: str) -> bool:
    shown, host = _shown_host(text), _host(target)
    return bool(shown and host) and not is_related(host, shown)
