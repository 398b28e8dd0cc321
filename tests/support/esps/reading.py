"""Reading of a request as strictly as the vendors document: its head, and a JSON object to its last key."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from email.utils import getaddresses

from tests.support.api_script import Header, Request
from tests.support.esps.values import Fault, Mailbox

FIELD_NAME = re.compile(r"[!-9;-~]+")
"""RFC 5322 3.6.8"""
ADDRESS = re.compile(r"[!#-'*+\-/-9=?A-Z^-~]+(?:\.[!#-'*+\-/-9=?A-Z^-~]+)*@(?:[A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]+")
"""An ASCII dot-atom before and a host name behind the @."""
ADDRESS_FIELDS = frozenset({"from", "to", "cc", "bcc", "reply-to", "sender", "subject"})
"""What every JSON API has a parameter of its own for."""
MIME_FIELDS = frozenset({"content-type", "content-transfer-encoding", "mime-version"})


class Fields:
    """A JSON object. Each key is asked for once; a key that nothing asked for is a fault."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise Fault(f"{where} is no object")
        self._left: dict[str, object] = dict(value)
        self._where = where

    def take(self, name: str) -> object:
        """Its value, None where it is absent. An explicit null is a fault: vendors differ in what it means."""
        if name not in self._left:
            return None
        value = self._left.pop(name)
        if value is None:
            raise Fault(f"{self._where}.{name} is null")
        return value

    def text(self, name: str, *, empty: bool = False) -> str | None:
        """`empty`: '' is no fault."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise Fault(f"{self._where}.{name} is no string")
        if not value and not empty:
            raise Fault(f"{self._where}.{name} is empty")
        return value

    def need(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise Fault(f"{self._where}.{name} is missing")
        return value

    def line(self, name: str, *, empty: bool = False) -> str | None:
        """Text for a header field: one line."""
        value = self.text(name, empty=empty)
        return None if value is None else one_line(value, f"{self._where}.{name}")

    def flag(self, name: str) -> bool | None:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise Fault(f"{self._where}.{name} is no boolean")
        return value

    def nested(self, name: str) -> Fields | None:
        value = self.take(name)
        return None if value is None else Fields(value, f"{self._where}.{name}")

    def need_nested(self, name: str) -> Fields:
        value = self.nested(name)
        if value is None:
            raise Fault(f"{self._where}.{name} is missing")
        return value

    def items(self, name: str) -> list[object]:
        """Empty where it is absent; a list that is there must not be."""
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list) or not value:
            raise Fault(f"{self._where}.{name} is no list, or an empty one")
        return list(value)

    def objects(self, name: str) -> list[Fields]:
        return [Fields(one, f"{self._where}.{name}[{at}]") for at, one in enumerate(self.items(name))]

    def texts(self, name: str) -> list[str]:
        found = self.items(name)
        if not all(isinstance(one, str) and one for one in found):
            raise Fault(f"{self._where}.{name} has something else than strings")
        return [str(one) for one in found]

    def mapping(self, name: str) -> dict[str, str]:
        """An object of strings."""
        value = self.take(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
            raise Fault(f"{self._where}.{name} is no object of strings")
        return dict(value)

    def finish(self) -> None:
        if self._left:
            raise Fault(f"{self._where} has unknown fields: {', '.join(sorted(self._left))}")


def expect_post(request: Request, path: str) -> None:
    """A POST to just that path, without a query."""
    if request.method != "POST":
        raise Fault(f"{request.method} instead of POST", 405)
    if request.path != path:
        raise Fault(f"the path {request.path} instead of {path}", 404)


def field_value(request: Request, name: str) -> str:
    """A field of the request that has to stand once."""
    values = request.values(name)
    if len(values) != 1:
        raise Fault(f"{len(values)} fields {name}")
    return values[0]


def expect_field(request: Request, name: str, value: str, status: int = 401) -> None:
    """A field of the request that has to stand once, with just this value. The text doesn't repeat it: a key."""
    if len(request.values(name)) != 1:
        raise Fault(f"{len(request.values(name))} fields {name}", status)
    if request.values(name) != [value]:
        raise Fault(f"{name} is wrong", status)


def basic(user: str, password: str) -> str:
    """The value of Authorization (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def json_body(request: Request) -> Fields:
    """The body as one JSON object, its Content-Type with it."""
    content_type = field_value(request, "content-type").lower().replace(" ", "")
    if content_type not in ("application/json", "application/json;charset=utf-8"):
        raise Fault(f"Content-Type {content_type}", 415)
    if request.values("content-encoding"):
        raise Fault("a Content-Encoding")
    try:
        text = request.body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError as exc:
        raise Fault(f"not UTF-8, or half a surrogate pair: {exc}") from exc
    except ValueError as exc:
        raise Fault(f"not JSON: {exc}") from exc
    return Fields(value, "body")


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Fault("a key stands twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise Fault(f"{name} is no JSON")


def one_line(value: str, where: str) -> str:
    if any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in value):
        raise Fault(f"{where} has a control character")
    return value


def address(value: object, where: str) -> str:
    """A bare address in ASCII: none of these vendors documents SMTPUTF8."""
    if not isinstance(value, str) or not ADDRESS.fullmatch(value):
        raise Fault(f"{where} is no address: {value!r}")
    return value


def mailboxes(value: str, where: str) -> tuple[Mailbox, ...]:
    """A list as in a To field, names in clear: `Ann <a@b.example>, "Lee, B." <l@b.example>`."""
    one_line(value, where)
    found = getaddresses([value])
    if "=?" in value:
        raise Fault(f"{where} has an encoded word: the vendor encodes by itself")
    return tuple(Mailbox(address(addr, where), name) for name, addr in found)


def mailbox(value: str, where: str) -> Mailbox:
    found = mailboxes(value, where)
    if len(found) != 1:
        raise Fault(f"{where} has {len(found)} addresses")
    return found[0]


def address_object(fields: Fields, *, email: str = "email", name: str = "name") -> Mailbox:
    """`{"email": ..., "name": ...}`; the name may be left out, but not be empty."""
    found = Mailbox(address(fields.take(email), email), fields.line(name) or "")
    fields.finish()
    return found


def address_objects(fields: Fields, names: tuple[str, str, str], **keys: str) -> list[tuple[Mailbox, ...]]:
    """The lists of those names: to, cc and bcc."""
    return [tuple(address_object(one, **keys) for one in fields.objects(name)) for name in names]


def addresses(*lists: Iterable[Mailbox]) -> tuple[str, ...]:
    """The bare addresses of all the lists."""
    return tuple(one.address for boxes in lists for one in boxes)


def check_count(recipients: Sequence[object], most: int) -> None:
    if not 1 <= len(recipients) <= most:
        raise Fault(f"{len(recipients)} recipients; 1 to {most} are allowed")


def check_distinct(recipients: Sequence[str]) -> None:
    lower = [one.lower() for one in recipients]
    if len(set(lower)) != len(lower):
        raise Fault("an address stands twice among to, cc and bcc")


def check_headers(
    pairs: Iterable[Header], forbidden: Iterable[str] = (), *, allowed: frozenset[str] = frozenset()
) -> tuple[Header, ...]:
    """`forbidden`: names in lower case; one that ends in `*` forbids all that begin so.
    `allowed`: those of ADDRESS_FIELDS that the vendor takes here."""
    headers = tuple(pairs)
    banned = [*(ADDRESS_FIELDS - allowed), *MIME_FIELDS, *forbidden]
    for name, value in headers:
        if not FIELD_NAME.fullmatch(name):
            raise Fault(f"no field name: {name!r}")
        one_line(value, f"the field {name}")
        for one in banned:
            if name.lower() == one or (one.endswith("*") and name.lower().startswith(one[:-1])):
                raise Fault(f"the field {name} may not be set")
    return headers


def from_base64(value: object, where: str) -> bytes:
    if not isinstance(value, str):
        raise Fault(f"{where} is no string")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Fault(f"{where} is no base64") from exc


def check_body(text: str | None, html: str | None) -> None:
    if text is None and html is None:
        raise Fault("neither text nor html")
