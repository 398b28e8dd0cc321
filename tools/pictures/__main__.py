"""Makes the pictures in docs/images: `python -m tools.pictures [sketch] [chart] [demo] [console]`, by default all.

`pip install -e '.[pictures]'` first. `demo` records a real run (about 45 s) and writes the recording, too: to the file
that RECORDING names, if it is set. `console` needs Chromium.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from tools.pictures.chart import chart
from tools.pictures.record import Key, record
from tools.pictures.sketch import sketch

FOLDER = Path(__file__).parents[2] / "docs/images"
COLUMNS, ROWS = 80, 24
KEYS = (Key(14.3, "b"), Key(18.3, "k"), Key(26.3, "k"), Key(40.3, "q"))
"""a burst; the fast upstream is killed; it comes back; the end"""
FRAME_EVERY_S, FRAME_STANDS_S = 1.0, 0.5
STILL_AT_S = 24
"""the frame for those that want no motion: while the fast upstream is down"""


def make_sketch() -> None:
    (FOLDER / "sketch.svg").write_text(sketch())


def make_chart() -> None:
    (FOLDER / "codes-beside-bulk.svg").write_text(chart())


def make_demo() -> None:
    from tools.pictures.terminal_svg import film, frames

    path = os.environ.get("RECORDING")
    recording = record([sys.executable, "-m", "relay", "demo"], KEYS, COLUMNS, ROWS)
    if path:
        recording.write(Path(path))
    title = (
        "A recording of otp-relay demo: codes take some 30 milliseconds while bulk mail waits longer and longer. The"
        " fast upstream is killed, and codes go by the slow one in some 300 milliseconds until it is back."
    )
    bar = f"otp-relay demo, recorded, shown {FRAME_EVERY_S / FRAME_STANDS_S:g} times as fast"
    found = frames(recording, FRAME_EVERY_S)
    (FOLDER / "demo.svg").write_text(film(found, FRAME_STANDS_S, title, bar, STILL_AT_S))


def make_console() -> None:
    from tools.pictures.console import pictures

    pictures(FOLDER)


PICTURES: dict[str, Callable[[], None]] = {
    "sketch": make_sketch,
    "chart": make_chart,
    "demo": make_demo,
    "console": make_console,
}


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or PICTURES:
        PICTURES[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
