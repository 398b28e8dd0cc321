"""Pictures of a running demo's console, by a headless Chromium."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
READY_WITHIN_S = 30.0


class View(NamedTuple):
    """One picture: its file's name, the scheme, the size of the window in CSS pixels."""

    name: str
    scheme: Literal["light", "dark"]
    width: int
    height: int


VIEWS = (
    View("console-light", "light", 1200, 800),
    View("console-dark", "dark", 1200, 800),
    View("console-phone", "light", 390, 800),
)


def pictures(folder: Path, views: tuple[View, ...] = VIEWS, after_s: float = 20.0) -> list[Path]:
    """Start a demo, wait so long that there is something to see, and write NAME.png for each view."""
    command = [sys.executable, "-m", "relay", "demo", "--seconds", f"{after_s + 60:g}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            found = re.search(r"http://\S+", demo.stdout.readline())
            assert found is not None, "the demo's first line has the console's link"
            return [_picture(found[0], view, folder, after_s if not at else 1.0) for at, view in enumerate(views)]
        finally:
            demo.terminate()


def _picture(url: str, view: View, folder: Path, after_s: float) -> Path:
    path = folder / f"{view.name}.png"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page(
            viewport={"width": view.width, "height": view.height}, color_scheme=view.scheme, device_scale_factor=1
        )
        page.goto(url, timeout=READY_WITHIN_S * 1000)
        page.wait_for_timeout(after_s * 1000)
        page.screenshot(path=path)
        browser.close()
    return path
