"""The pictures in docs/images: made by tools/pictures, and true."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.pictures.chart import COMMIT, WORKS, Times, chart
from tools.pictures.record import Key, record
from tools.pictures.sketch import sketch

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"
MOST_BYTES = 600_000


def test_the_chart_has_the_figures_of_the_performance_page() -> None:
    page = (ROOT / "docs/performance.md").read_text()
    section = page.partition("### Beside Postfix\n")[2].partition("\n### ")[0]
    assert f"`{COMMIT}`" in section
    rows = dict(re.findall(r"^\| ([^|]+) \| [^|]+ (\| .+ \|)$", section, re.MULTILINE))
    for work in WORKS:
        assert rows[work.row] == f"| {work.relay} | {work.postfix} |"


@pytest.mark.parametrize(("name", "made"), [("codes-beside-bulk", chart), ("sketch", sketch)])
def test_a_drawn_picture_is_what_its_program_draws(name: str, made: object) -> None:
    assert callable(made)
    assert (IMAGES / f"{name}.svg").read_text() == made()


def test_the_pictures_are_small_and_load_nothing() -> None:
    assert sum(path.stat().st_size for path in IMAGES.iterdir()) < MOST_BYTES
    for path in IMAGES.glob("*.svg"):
        text = path.read_text()
        assert ElementTree.fromstring(text).find("{http://www.w3.org/2000/svg}title") is not None
        assert not re.search(r"(href|src)=\"(?!#)|url\((?!#)|<script|@import", text)


def test_the_recorded_demo_shows_the_failover() -> None:
    text = (IMAGES / "demo.svg").read_text()
    for shown in ("fast is down: codes go by slow", "burst: 50 codes are sent", "fast is back", "one queue for all"):
        assert shown in text
    assert "prefers-reduced-motion" in text


def test_times_are_shown_as_the_page_writes_them() -> None:
    assert str(Times(695, 1151)) == "695 / 1151"


PROGRAM = r"""
import sys
sys.stdout.write("before\r\n\x1b[?1049h\x1b[1;1H\x1b[32m●\x1b[0m \x1b[2;1H└─×░")
sys.stdout.flush()
key = sys.stdin.readline().strip()
sys.stdout.write(f"\x1b[1;3Hgot {key}")
sys.stdout.flush()
sys.stdin.readline()
sys.stdout.write("\x1b[?1049l")
"""


def test_a_program_is_recorded_with_its_keys_and_becomes_a_film(tmp_path: Path) -> None:
    pytest.importorskip("pyte", reason="pyte isn't installed: pip install -e '.[pictures]'")
    from tools.pictures.terminal_svg import film, frames

    recording = record([sys.executable, "-c", PROGRAM], (Key(0.2, "x<\n"), Key(0.6, "\n")), 20, 4)
    recording.write(tmp_path / "cast")
    assert (tmp_path / "cast").read_text().startswith('{"version": 2, "width": 20, "height": 4}\n[0.0, "o", ')
    found = frames(recording, 0.1)
    first, last = ("".join(cell.character for cell in frame[0]).rstrip() for frame in (found[0], found[-1]))
    assert (first, last) == ("●", "● got x<")
    drawn = film(found, 0.5, "title", "bar", 0)
    assert "got x&lt;" in drawn
    assert "before" not in drawn
    ElementTree.fromstring(drawn)
