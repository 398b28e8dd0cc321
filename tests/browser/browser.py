"""A real browser for tests: Debian's Chromium, driven by Playwright; axe-core looks for what readers can't use."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page

CHROMIUM = shutil.which("chromium")
WITHIN_MS = 10_000
AXE = Path("axe-core/axe.min.js")


def axe_file() -> Path:
    """Where npm installed axe-core. Skips the test where it didn't."""
    for folder in os.environ.get("NODE_PATH", "").split(os.pathsep):
        if folder and (Path(folder) / AXE).is_file():
            return Path(folder) / AXE
    pytest.skip("no axe-core (npm)")


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """Skips the tests where there is no Chromium or no Playwright."""
    if CHROMIUM is None:
        pytest.skip("no chromium")
    api = pytest.importorskip("playwright.async_api", reason="no playwright")
    async with api.async_playwright() as playwright:
        # Without its sandbox, since CI runs as root; it loads the relay's own pages only.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


async def context_of(browser: Browser, **given: Any) -> BrowserContext:
    """A reader's own cookies, zone and screen. `given`: as `color_scheme`."""
    usual = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", "reduced_motion": "reduce"}
    context = await browser.new_context(**{**usual, **given})
    context.set_default_timeout(WITHIN_MS)
    return context


@asynccontextmanager
async def opened(browser: Browser, url: str, *, errors: Sequence[str] = (), **given: Any) -> AsyncIterator[Page]:
    """A page in a context of its own, as `watched`."""
    context = await context_of(browser, **given)
    try:
        async with watched(context, url, errors) as page:
            yield page
    finally:
        await context.close()


@asynccontextmanager
async def watched(context: BrowserContext, url: str, errors: Sequence[str] = ()) -> AsyncIterator[Page]:
    """A page. Whatever its scripts or its policy complain about fails the test, but for texts with one of `errors` in
    them."""
    page = await context.new_page()
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        await page.goto(url)
        yield page
    finally:
        await page.close()
    assert [one for one in complaints if not any(text in one for text in errors)] == []


async def violations(page: Page, axe: str) -> list[str]:
    """What axe-core finds on the page, one sentence each: by all its rules in light, in dark by those about colours.
    `axe`: its script."""
    await page.evaluate(axe)  # by the debugger, so the page's policy isn't asked
    options: dict[str, object] = {"resultTypes": ["violations"], "preload": False, "reporter": "no-passes"}
    await page.emulate_media(color_scheme="light")
    found = await page.evaluate("options => axe.run(document, options)", options)
    await page.emulate_media(color_scheme="dark")
    colours = ["color-contrast", "link-in-text-block"]
    dark = await page.evaluate("options => axe.run(document, options)", {**options, "runOnly": colours})
    await page.emulate_media(color_scheme="light")
    found["violations"] += dark["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]
