"""Find the addresses in a From, To or Cc value (RFC 5322 3.4), obsolete and broken forms included, in linear time."""

from __future__ import annotations

import re

from relay.mail.address import MAX_DOMAIN_OCTETS

# A token without its end is still a token: nothing is read twice, so the time is linear.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|\[[^\]\[<>,]*\]?|[<>,:;]|[^"\[<>,:;]+', re.DOTALL)
_SPECIAL = re.compile(r'\\.|["()]', re.DOTALL)
_NO_ADDRESS = re.compile(r'["()<>,;\\@]')


def addresses_in(text: str) -> list[str]:
    """The addr-specs of an unfolded value, domains in lower case. Everything else is skipped."""
    loose: list[str] = []
    angle: list[str] | None = None
    found: list[str | None] = []
    for piece in _TOKEN.findall(_without_comments(text)):
        if piece == "<":
            angle, loose = [], []
        elif piece == ">" and angle is not None:
            found.append(_address("".join(angle)))
            angle, loose = None, []
        elif piece == ":":
            # Behind a group's name, or a source route inside <>, the address begins anew.
            (loose if angle is None else angle).clear()
        elif piece in ",;" and angle is None:
            found.append(_address("".join(loose)))
            loose = []
        else:
            (loose if angle is None else angle).append(piece)
    found.append(_address("".join(loose if angle is None else angle)))
    return [address for address in found if address is not None]


_WELL_FORMED_TOKEN = re.compile(
    r"""[ \t]+|\((?:[^()\\]|\\.)*+\)|"(?:[^"\\]|\\.)*+"|\[[^\[\]\\]*+\]|[^\s()<>\[\]:;@\\,"]++|[<>@,]"""
)
# In kinds of tokens: `w` a word, `e` one with what may be an encoded word, `l` a literal, and signs. Some programs
# decode an encoded word within an address, and read another from it.
_MAILBOX_KINDS = r" ?+(?:(?:[we](?: ?[we])*+ ?+)?+<w@[wl]>|w@[wl]) ?+"
_SIGN_KINDS = {" ": " ", "\t": " ", "(": " ", "[": "l", "<": "<", ">": ">", "@": "@", ",": ","}
_LIST_KINDS = re.compile(rf"{_MAILBOX_KINDS}(?:,{_MAILBOX_KINDS})*+")


def is_well_formed(text: str) -> bool:
    """Whether an unfolded value is a mailbox-list as RFC 5322 3.4 writes it (raw UTF-8 in words, RFC 6532): then all
    programs read the same addresses from it. Groups and obsolete forms aren't."""
    kinds: list[str] = []
    at = 0
    while at < len(text):
        found = _WELL_FORMED_TOKEN.match(text, at)
        if found is None or not found[0].replace("\t", " ").isprintable():
            return False
        at = found.end()
        sign = found[0][0]
        kind = _SIGN_KINDS.get(sign) or ("e" if "=?" in found[0] else "w")
        if kind != " " or kinds[-1:] != [" "]:
            kinds.append(kind)
    return _LIST_KINDS.fullmatch("".join(kinds)) is not None


def _address(text: str) -> str | None:
    """The addr-spec in `text`, without the words before and behind it."""
    words = " ".join(text.split())
    for sign in "@.":
        words = words.replace(f" {sign}", sign).replace(f"{sign} ", sign)
    left, _, right = words.rpartition("@")
    if not left or not right or not words.isprintable():
        return None
    quoted = left.endswith('"')
    local = left[left.find('"') :] if quoted else left.split()[-1]
    domain = right.split()[0].lower()
    if len(domain) > MAX_DOMAIN_OCTETS + domain.endswith("."):
        return None
    if _NO_ADDRESS.search(domain) or (not quoted and _NO_ADDRESS.search(local)):
        return None
    return f"{local}@{domain}"


def _without_comments(text: str) -> str:
    """Comments (RFC 5322 3.2.2), even nested ones, become a blank."""
    if "(" not in text:
        return text
    kept: list[str] = []
    depth, quoted, last = 0, False, 0
    for found in _SPECIAL.finditer(text):
        sign = found[0]
        if sign == '"' and depth == 0:
            quoted = not quoted
        elif sign == "(" and not quoted:
            if depth == 0:
                kept.append(text[last : found.start()])
            depth += 1
        elif sign == ")" and depth:
            depth -= 1
            last = found.end()
    if depth == 0:
        kept.append(text[last:])
    return " ".join(kept)
