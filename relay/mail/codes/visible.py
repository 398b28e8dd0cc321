"""The text that a reader sees of an HTML part. It takes linear time, whatever the HTML holds."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from html import unescape
from itertools import accumulate

MOST_TAGS = 2_000
"""of a part, also of its `<` that are none; what stands behind them isn't looked at. A code's mail has some hundred"""
_MOST_OPAQUE_TAGS = 4 * MOST_TAGS
"""with those in comments and other elements whose content isn't shown"""
_MOST_HIDDEN = 100
"""places of one kind; the ones behind them are taken for shown"""

# A browser takes `<` for a tag only before these characters.
_TAG = re.compile(r"<([/!?]?[a-zA-Z][a-zA-Z0-9:]*+|[/!?])([^<>]*+)>")
_OPAQUE = re.compile(r"<(?:!--|(style|script|title|template|svg|iframe|object)\b)", re.IGNORECASE)
_CLOSERS = {
    name: re.compile(rf"</{name}[^>]*+>", re.IGNORECASE)
    for name in ("style", "script", "title", "template", "svg", "iframe", "object")
}
_ENTITY = re.compile(r"&(#[xX]?[0-9a-fA-F]{1,7}|[a-zA-Z][a-zA-Z0-9]{1,31});?")
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "br", "center", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html",
    "legend", "li", "main", "nav", "ol", "option", "p", "pre", "section", "select", "table", "tbody", "tfoot", "thead",
    "tr", "ul",
))  # fmt: skip
VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"))
"""elements without an end"""
_HIDING = (("display", "none"), ("visibility", "hidden"), ("font-size", "0"), ("max-height", "0"), ("opacity", "0"))
_HINTS = (
    *(f"{name}{colon}{value}" for name, value in _HIDING for colon in (":", ": ", " :", " : ")), "mso-hide", " hidden",
)  # fmt: skip
"""An element that is hidden has one of these in its attributes. They are searched for faster than the pattern."""
_HIDES = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|(?:font-size|max-height|opacity)\s*:\s*0+(?:\.0+)?(?:px|pt|r?em|%)?\s*"
    r"(?:[;\"'!]|$)|mso-hide\s*:\s*all",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"[^\"]*+\"|'[^']*+'")
_HIDDEN = re.compile(r"\shidden(?=[\s=/]|\Z)", re.IGNORECASE)


@lru_cache(1_000)
def _break(name: str) -> str:
    """What stands for a tag in the text, by its name as written, with the `/` of a closing tag."""
    plain = name.lower().lstrip("/")
    return "\n" if plain in _BLOCKS else "\t" if plain in ("td", "th") else ""


@lru_cache(1_000)
def _entity(name: str) -> str:
    return unescape(f"&{name};")


def visible_text(html: str) -> str:
    """Lines of text, without tags, comments, styles and what is hidden. Table cells of a row are divided by a TAB."""
    html = _before_tag(_MOST_OPAQUE_TAGS, " ".join(html.split()))
    html = _before_tag(MOST_TAGS, _without_opaque(html))
    pieces = _TAG.split(html)
    texts, names, attributes = pieces[0::3], pieces[1::3], pieces[2::3]
    breaks = list(map(_break, names))
    for first, end in _hidden(names, attributes):
        texts[first + 1 : end + 1] = [""] * (end - first)
        breaks[first + 1 : end] = [""] * (end - first - 1)
    result = [""] * (len(texts) + len(breaks))
    result[0::2] = texts
    result[1::2] = breaks
    return _with_entities_decoded("".join(result))


def _before_tag(number: int, html: str) -> str:
    return html if html.count("<") <= number else html[: -len(html.split("<", number)[-1])]


def _with_entities_decoded(text: str) -> str:
    if "&" not in text:
        return text
    pieces = _ENTITY.split(text, MOST_TAGS)
    pieces[1::2] = map(_entity, pieces[1::2])
    return "".join(pieces)


def hides(style: str) -> bool:
    """Whether a style attribute hides its element."""
    return _HIDES.search(style) is not None


def _is_hidden(attributes: str) -> bool:
    return hides(attributes) or _HIDDEN.search(_QUOTED.sub("", attributes)) is not None


def _without_opaque(html: str) -> str:
    """Without comments and without elements whose content isn't shown. One without an end reaches to the end."""
    found = _OPAQUE.search(html)
    if found is None:
        return html
    kept = []
    at = 0
    while found is not None:
        kept.append(html[at : found.start()])
        if found[1] is None:
            end = html.find("-->", found.end())
            at = end + 3 if end >= 0 else len(html)
        else:
            closer = _CLOSERS[found[1].lower()].search(html, found.end())
            at = closer.end() if closer is not None else len(html)
        found = _OPAQUE.search(html, at)
    kept.append(html[at:])
    return "".join(kept)


def _hidden(names: list[str], attributes: list[str]) -> Iterator[tuple[int, int]]:
    """The numbers of the opening and the closing tag of each hidden element. One without an end reaches to the end."""
    joined = "\n".join(attributes).lower()
    hits = sorted({at for hint in _HINTS for at in _places(joined, hint)})
    if not hits:
        return
    ends = list(accumulate(len(one) + 1 for one in attributes))
    done = 0
    for hit in hits:
        number = bisect_right(ends, hit)
        # A letter whose lower case is longer moves the hits behind it: what they hit is looked at again.
        if number < done or number >= len(names) or not _is_hidden(attributes[number]):
            continue
        name = names[number].lower()
        if name not in VOID and name[0] != "/":
            done = _end_of_element(names, name, number)
            yield number, done


def _places(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    left = _MOST_HIDDEN
    while at >= 0 and left:
        yield at
        left -= 1
        at = text.find(word, at + len(word))


def _end_of_element(names: list[str], name: str, first: int) -> int:
    depth = 1
    for number in range(first + 1, len(names)):
        found = names[number].lower()
        if found == name:
            depth += 1
        elif found == f"/{name}":
            depth -= 1
            if depth == 0:
                return number
    return len(names)
