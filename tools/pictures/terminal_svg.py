"""An asciicast as an animated SVG: a film strip of its frames, which CSS moves by one frame at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

import pyte

from tools.pictures.record import HIDES, Recording
from tools.pictures.svg import MONO, document

CELL_W, CELL_H, SIZE = 8.4, 18.0, 14
MARGIN, BAR = 14, 30
COLOURS = {"green": "#3fb950", "cyan": "#39c5cf", "magenta": "#e07be0", "red": "#ff7b72"}
TEXT, GROUND, FAINT = "#d1d7e0", "#0d1117", "#7d8590"
_SHAPES = {"●": "dots", "░": "blocks", "×": "crosses"}
_BOXES = {
    "│": "M{cx:g} 0V{h:g}",
    "┤": "M{cx:g} 0V{h:g}M{x:g} {cy:g}H{cx:g}",
    "└": "M{cx:g} 0V{cy:g}H{right:g}",
    "─": "M{x:g} {cy:g}H{right:g}",
    "┴": "M{x:g} {cy:g}H{right:g}M{cx:g} 0V{cy:g}",
}
"""Drawn and not written, so that no font can misplace or lack them."""


class Cell(NamedTuple):
    character: str
    colour: str
    is_bold: bool


Row = tuple[Cell, ...]
Frame = tuple[Row, ...]


def frames(recording: Recording, every_s: float) -> list[Frame]:
    """What the terminal showed at each multiple of `every_s`, until the program left its second screen."""
    screen = pyte.Screen(recording.columns, recording.rows)
    stream = pyte.Stream(screen)
    found: list[Frame] = []
    next_at_s = every_s
    for at_s, text in recording.output:
        while at_s >= next_at_s:
            found.append(_frame(screen))
            next_at_s += every_s
        if HIDES in text:
            break
        stream.feed(text)
    return found


def film(found: Sequence[Frame], each_s: float, title: str, bar: str, still: int) -> str:
    """`each_s`: how long a frame stands; `bar`: the text above; `still`: the frame for those that want no motion."""
    columns, rows = len(found[0][0]), len(found[0])
    inner_w, inner_h = columns * CELL_W, rows * CELL_H
    width, height = round(inner_w + 2 * MARGIN), round(inner_h + BAR + 2 * MARGIN)
    ids: dict[Row, str] = {}
    strip = []
    for at, frame in enumerate(found):
        uses = []
        for number, row in enumerate(frame):
            if any(cell.character != " " for cell in row):
                name = ids.setdefault(row, f"r{len(ids)}")
                uses.append(f'<use href="#{name}" y="{number * CELL_H:g}"/>')
        strip.append(f'<g transform="translate({at * inner_w:g})">{"".join(uses)}</g>')
    lines = "".join(f'<g id="{name}">{"".join(_drawn(row))}</g>' for row, name in ids.items())
    total_w = inner_w * len(found)
    style = (
        f"text{{font:{SIZE}px {MONO};white-space:pre}}.b{{font-weight:600}}"
        ".dots{stroke-width:7;stroke-linecap:round}.crosses{stroke-width:1.6}"
        f"#film{{animation:play {each_s * len(found):g}s steps({len(found)}) infinite}}"
        f"@keyframes play{{to{{transform:translateX(-{total_w:g}px)}}}}"
        "@media (prefers-reduced-motion:reduce)"
        f"{{#film{{animation:none;transform:translateX(-{still * inner_w:g}px)}}}}"
    )
    dots = "".join(f'<circle cx="{20 + 18 * at}" cy="17" r="5.5" fill="#3d444d"/>' for at in range(3))
    body = (
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="10" fill="{GROUND}" stroke="#3d444d"/>'
        f'{dots}<text x="{width / 2:g}" y="22" text-anchor="middle" fill="{FAINT}">{escape(bar)}</text>'
        f"<defs>{lines}</defs>"
        f'<svg x="{MARGIN}" y="{BAR + MARGIN}" width="{inner_w:g}" height="{inner_h:g}">'
        f'<g id="film" fill="{TEXT}">{"".join(strip)}</g></svg>'
    )
    return document(width, height, title, body, style)


def _frame(screen: pyte.Screen) -> Frame:
    return tuple(
        tuple(
            Cell(one.data, COLOURS.get(one.fg, TEXT), one.bold)
            for one in (screen.buffer[row][column] for column in range(screen.columns))
        )
        for row in range(screen.lines)
    )


def _drawn(row: Row) -> Iterator[str]:
    """The row's elements, at y 0; neighbours that look alike are one."""
    for (colour, is_bold, kind), group in groupby(enumerate(row), key=lambda one: _kind(one[1])):
        cells = list(group)
        first = cells[0][0]
        match kind:
            case "text":
                yield from _text(first, "".join(cell.character for _, cell in cells), colour, is_bold)
            case "axis":
                path = "".join(_BOXES[cell.character].format(**_place(column)) for column, cell in cells)
                yield f'<path d="{path}" stroke="{FAINT}" fill="none"/>'
            case "blocks":
                size = f'x="{first * CELL_W:g}" width="{len(cells) * CELL_W:g}" height="{CELL_H:g}"'
                yield f'<rect {size} fill="{colour}" fill-opacity=".55"/>'
            case _:
                form = "M{cx:g} {cy:g}h0" if kind == "dots" else "M{left:g} 6l6 6M{left:g} 12l6-6"
                path = "".join(form.format(**_place(column)) for column, _ in cells)
                yield f'<path class="{kind}" d="{path}" stroke="{colour}"/>'


def _kind(cell: Cell) -> tuple[str, bool, str]:
    if cell.character in _BOXES:
        return FAINT, False, "axis"
    return cell.colour, cell.is_bold, _SHAPES.get(cell.character, "text")


def _text(column: int, content: str, colour: str, is_bold: bool) -> Iterator[str]:
    shown = content.strip()
    if not shown:
        return
    x = (column + len(content) - len(content.lstrip())) * CELL_W
    # The width is set: no font's own may shift what follows.
    length = f'textLength="{len(shown) * CELL_W:g}" lengthAdjust="spacingAndGlyphs"'
    fill = "" if colour == TEXT else f' fill="{colour}"'
    bold = ' class="b"' if is_bold else ""
    yield f'<text x="{x:g}" y="13.5" {length}{fill}{bold}>{escape(shown)}</text>'


def _place(column: int) -> dict[str, float]:
    x, cx = round(column * CELL_W, 1), round((column + 0.5) * CELL_W, 1)
    return {"x": x, "cx": cx, "cy": CELL_H / 2, "right": round(x + CELL_W, 1), "left": round(cx - 3, 1), "h": CELL_H}
