"""What lint has rules about in an HTML part: links, images, forms, what is hidden, and what stands out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import NamedTuple

from relay.mail.codes.shapes import searchable
from relay.mail.codes.visible import VOID, hides

_NOT_TEXT = frozenset(("style", "script", "title", "head", "template"))
_EMPHASISING = frozenset(("h1", "h2", "h3", "b", "strong", "big", "mark", "code"))
_EMPHASISED_STYLE = re.compile(
    r"font-size\s*:\s*(?:1[89]|[2-9]\d)(?:\.\d+)?p[xt]|font-weight\s*:\s*(?:bold|[6-9]00)", re.I
)
_SIZE = re.compile(r"(?:^|;)\s*(width|height)\s*:\s*(\d+)")
MOST_DEPTH = 200


@dataclass(slots=True)
class Markup:
    """`links` are pairs of shown text and target; `pixels` are images of at most 2 by 2."""

    links: list[tuple[str, str]] = field(default_factory=list)
    images: int = 0
    pixels: int = 0
    forms: int = 0
    hidden_chars: int = 0
    """of text, without blanks"""
    emphasised: list[str] = field(default_factory=list)
    """texts in headings, in bold, in large letters; without blanks"""


class _Open(NamedTuple):
    """An open element, and whether its text isn't text at all, is hidden, or stands out."""

    tag: str
    is_text: bool
    hidden: bool
    emphasised: bool


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found = Markup()
        self._open = [_Open("", is_text=True, hidden=False, emphasised=False)]
        self._link: tuple[list[str], str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "img":
            self._image(given)
        elif tag in ("form", "input", "textarea", "select"):
            self.found.forms += 1
        elif tag == "a" and given.get("href"):
            self._link = ([], given["href"].strip())
        if tag not in VOID and len(self._open) < MOST_DEPTH:
            style, within = given.get("style", ""), self._open[-1]
            self._open.append(
                _Open(
                    tag,
                    is_text=within.is_text and tag not in _NOT_TEXT,
                    hidden=within.hidden or "hidden" in given or hides(style),
                    emphasised=within.emphasised or tag in _EMPHASISING or bool(_EMPHASISED_STYLE.search(style)),
                )
            )

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._link is not None:
            self.found.links.append((" ".join("".join(self._link[0]).split()), self._link[1]))
            self._link = None
        for at in range(len(self._open) - 1, 0, -1):
            if self._open[at].tag == tag:
                del self._open[at:]
                break

    def handle_data(self, data: str) -> None:
        within = self._open[-1]
        if not within.is_text:
            return
        if within.hidden:
            self.found.hidden_chars += len("".join(searchable(data).split()))
            return
        if within.emphasised:
            self.found.emphasised.append("".join(searchable(data).split()).replace("-", ""))
        if self._link is not None:
            self._link[0].append(data)

    def _image(self, given: dict[str, str]) -> None:
        sizes = dict(_SIZE.findall(given.get("style", "").lower()))
        sizes.update({name: given[name] for name in ("width", "height") if name in given})
        small = [value.strip().removesuffix("px") in ("0", "1", "2") for value in sizes.values()]
        if len(small) == 2 and all(small):
            self.found.pixels += 1
        else:
            self.found.images += 1


def markup_of(html: str) -> Markup:
    """Never raises: what can't be read is left out."""
    reader = _Reader()
    try:
        reader.feed(html)
        reader.close()
    except (AssertionError, ValueError):
        # html.parser of Python 3.11 raises these for some broken declarations.
        return reader.found
    return reader.found
