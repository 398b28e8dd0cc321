"""Parse what a request or a command says about suppressed addresses."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TextIO

from relay.config.parse import parse_duration
from relay.mail.address import parse_path
from relay.policy.suppression import CAUSES, Cause
from relay.store.suppressions import MOST_REASON_CHARS, SuppressionQuery, WantedSuppression
from relay.web.query import BadQuery, parse_limit, parse_time

FILTERS = ("address", "cause", "limit", "after")
MAX_LIMIT = 1_000
MAX_AT_ONCE = 10_000
_HASH = re.compile(r"h:[0-9a-f]{16}")
_HASH_OF_MAIL = re.compile(r"h:[0-9a-f]{16}@.*")
_CURSOR = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)_(-?\d{1,20})")


def address(given: object) -> str:
    """A mailbox. Raises BadQuery."""
    if not isinstance(given, str) or "@" not in given or not given.isprintable():
        raise BadQuery(f"expected an address, got {given!r}")
    with suppress(ValueError):
        mailbox, rest = parse_path(f"<{given}>")
        if not rest:
            return mailbox
    raise BadQuery(f"expected an address, got {given!r}")


def address_or_hash(given: str | None) -> str:
    """An address, or what is shown in the place of one that isn't kept. Raises BadQuery, also for a hash as finished
    mail has it: its key is another one."""
    if given is not None and _HASH.fullmatch(given):
        return given
    if given is not None and _HASH_OF_MAIL.fullmatch(given):
        raise BadQuery("this hash is one of finished mail, suppressions have others: give the address itself")
    return address(given)


def listing_query(given: Mapping[str, str], hash_of: Callable[[str], int]) -> SuppressionQuery:
    """The query of the filters `address`, `cause`, `limit` and `after`. Raises BadQuery."""
    unknown = sorted(given.keys() - set(FILTERS))
    if unknown:
        raise BadQuery(f"unknown filter {unknown[0]!r}; known are {', '.join(FILTERS)}")
    wanted, cause = given.get("address"), given.get("cause")
    return SuppressionQuery(
        hashed=None if wanted is None else hash_of(address_or_hash(wanted)),
        cause=None if cause is None else _cause(cause),
        behind=_behind(given.get("after")),
        limit=min(parse_limit(given.get("limit")), MAX_LIMIT),
    )


def cursor(at: float, key: int) -> str:
    """`after` of the page behind this entry."""
    return f"{at!r}_{key}"


def _behind(text: str | None) -> tuple[float, int] | None:
    if text is None:
        return None
    found = _CURSOR.fullmatch(text)
    if found is None or not -(2**63) <= int(found[2]) < 2**63:
        raise BadQuery(f"after: expected what the page before gave, got {text!r}")
    return float(found[1]), int(found[2])


def _cause(given: object) -> Cause:
    for cause in CAUSES:
        if given == cause:
            return cause
    raise BadQuery(f"cause: expected one of {', '.join(CAUSES)}, got {given!r}")


def wanted(body: Any, now: float) -> list[WantedSuppression]:
    """One `{"address", "reason", "for", "cause"}` or a list of such; `until`, a time, may stand in the place of `for`.
    Raises BadQuery."""
    given = body if isinstance(body, list) else [body]
    if not 1 <= len(given) <= MAX_AT_ONCE:
        raise BadQuery(f"expected 1 to {MAX_AT_ONCE} suppressions")
    return [_wanted(one, now) for one in given]


def _wanted(given: Any, now: float) -> WantedSuppression:
    known = {"address", "reason", "for", "until", "cause"}
    if not isinstance(given, dict) or given.keys() - known or "address" not in given:
        raise BadQuery('expected {"address": "...", "reason": "...", "for": "30d"}')
    if given.get("for") is not None and given.get("until") is not None:
        raise BadQuery("for and until: give one of them")
    until = life(given.get("for"), given.get("until"), now)
    if until is not None and until <= now:
        raise BadQuery("until: this time is past")
    why, cause = reason(given.get("reason")), cause_or_manual(given.get("cause"))
    return WantedSuppression(one_address(given["address"]), why, until, cause)


def one_address(given: object) -> str:
    """A mailbox to suppress. Raises BadQuery, also for what looks like a pattern."""
    mailbox = address(given)
    if "*" in mailbox:
        raise BadQuery(f"expected one address, got {given!r}: patterns are not supported")
    return mailbox


def cause_or_manual(given: object) -> Cause:
    """What a suppression is for; None: an operator's. Raises BadQuery."""
    return "manual" if given is None else _cause(given)


def reason(given: object) -> str:
    """An operator's reason. Raises BadQuery."""
    if given is None:
        return ""
    if not isinstance(given, str) or not given.isprintable() or len(given) > MOST_REASON_CHARS:
        raise BadQuery(f"reason: expected one printable line of {MOST_REASON_CHARS} characters at most")
    return given


def life(duration: object, until: object, now: float) -> float | None:
    """Until when, in seconds since the epoch, for a duration such as 30d or a time (RFC 3339). Raises BadQuery."""
    if duration is not None:
        if not isinstance(duration, str):
            raise BadQuery("for: expected a duration such as 30d")
        try:
            return now + parse_duration(duration, None)
        except ValueError as error:
            raise BadQuery(f"for: {error}") from None
    if until is None:
        return None
    return parse_time(until if isinstance(until, str) else repr(until))


class Line(NamedTuple):
    """A line of a file to import: what it says, or why it can't be read."""

    number: int
    wanted: WantedSuppression | None
    error: str = ""


def import_lines(file: TextIO, defaults: WantedSuppression) -> Iterator[Line]:
    """A file with one address a line, optionally `,reason,until,cause`. What a line doesn't say is as in `defaults`,
    whose address doesn't matter. Empty lines, and those that begin with #, are left out."""
    for number, text in enumerate(file, start=1):
        if not text.strip() or text.startswith("#"):
            continue
        try:
            columns = next(csv.reader([text.rstrip("\r\n")], strict=True))
            yield Line(number, _from_columns(columns, defaults))
        except (BadQuery, csv.Error) as error:
            yield Line(number, None, str(error))


def _from_columns(columns: list[str], defaults: WantedSuppression) -> WantedSuppression:
    if len(columns) > 4:
        raise BadQuery("expected address,reason,until,cause")
    found = [*(column.strip() for column in columns), "", "", ""]
    return WantedSuppression(
        one_address(found[0]),
        reason(found[1]) or defaults.reason,
        parse_time(found[2]) if found[2] else defaults.until,
        _cause(found[3]) if found[3] else defaults.cause,
    )


def export_lines(rows: Iterable[Mapping[str, Any]], file: TextIO) -> tuple[int, int]:
    """Write rows (`Suppression.as_json`) so that `import_lines` reads them. Returns how many were written, and how many
    were left out because their addresses aren't kept."""
    writer, written, left_out = csv.writer(file, lineterminator="\n"), 0, 0
    for row in rows:
        if _HASH.fullmatch(row["address"]):
            left_out += 1
            continue
        cause = "" if row["cause"] == "manual" else row["cause"]
        columns = [row["address"], row["reason"], row["until"] or "", cause]
        while len(columns) > 1 and not columns[-1]:
            columns.pop()
        writer.writerow(columns)
        written += 1
    return written, left_out
