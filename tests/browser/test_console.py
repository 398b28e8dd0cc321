"""The console in a real browser, before a real relay."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.browser.browser import axe_file, context_of, launched, opened, violations, watched
from tests.browser.scene import DEAD, SECRET, Scene, play
from tests.support.app import BULK
from tests.support.relay import RelayProcess, get, post, time_line, write_config
from tests.support.upstream import Upstream

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Locator, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIEWS = ["/", "/queue", "/upstreams", "/suppressions", "/limits", "/report", "/configuration"]
HEADINGS = {
    "/": "Messages",
    "/queue": "Queue",
    "/upstreams": "Upstreams",
    "/suppressions": "Suppressions",
    "/limits": "Limits",
    "/report": "Report",
    "/configuration": "Configuration",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with launched() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with play(tmp_path_factory.mktemp("console")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader(browser: Browser) -> BrowserContext:
    return await context_of(browser)


@pytest_asyncio.fixture(loop_scope="module")
async def page(reader: BrowserContext, scene: Scene) -> AsyncIterator[Page]:
    async with watched(reader, scene.url) as found:
        await row(found, "news0@example.net").wait_for()
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def script_page(browser: Browser, scene: Scene) -> AsyncIterator[Page]:
    """For tests of what the page's scripts compute."""
    async with opened(browser, f"{scene.url}/configuration") as found:
        yield found


def row(page: Page, text: str) -> Locator:
    return page.locator("tbody tr").filter(has_text=text)


async def search(page: Page, text: str, finds: str) -> None:
    """Type into the search box, and wait until the rows are those with `finds`."""
    await page.get_by_role("searchbox").fill(text)
    await page.wait_for_function(
        "finds => { const rows = [...document.querySelectorAll('tbody tr')];"
        "  return rows.length > 0 && rows.every((row) => row.textContent.includes(finds)); }",
        arg=finds,
    )


async def confirm(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name, exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()
    await page.get_by_role("dialog").wait_for(state="detached")


async def test_a_found_row_opens_its_message_by_click_and_back_leads_to_the_search(page: Page, scene: Scene) -> None:
    await search(page, "ann@gm", "ann@gmail.com")
    assert page.url == f"{scene.url}/?q=ann%40gm"
    await row(page, "ann@gmail.com").get_by_text("otp").click()
    await page.wait_for_url(f"**/m/{scene.ids['ann']}")
    await page.get_by_role("heading", name="ann@gmail.com").wait_for()
    await page.go_back()
    await row(page, "ann@gmail.com").wait_for()
    assert await page.get_by_role("searchbox").input_value() == "ann@gm"
    assert await page.locator("tbody tr").count() == 1
    assert await row(page, "ann@gmail.com").get_by_role("link").evaluate("link => link === document.activeElement")


async def test_a_found_row_opens_its_message_by_enter(page: Page, scene: Scene) -> None:
    await page.keyboard.press("/")
    await page.keyboard.type("ann@")
    await page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/m/{scene.ids['ann']}")
    await page.get_by_role("heading", name="ann@gmail.com").wait_for()
    await page.keyboard.press("Escape")
    await page.wait_for_url("**/?q=ann%40")
    await row(page, "ann@gmail.com").focus()
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/m/{scene.ids['ann']}")


async def test_the_search_knows_ids_subjects_and_message_ids(page: Page, scene: Scene) -> None:
    await search(page, scene.ids["failover"], "failover@yahoo.com")
    await search(page, "News, number 2", "news2@example.net")
    await page.get_by_role("searchbox").fill("no such thing")
    await page.get_by_text("No message matches.").wait_for()
    await page.get_by_role("searchbox").fill("fixed@app.example.com")
    await row(page, "ann@gmail.com").wait_for()


async def test_filters_are_in_the_url_and_each_choice_is_one_step_back(page: Page, scene: Scene) -> None:
    await page.get_by_label("State", exact=True).select_option("bounced")
    await page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    assert page.url == f"{scene.url}/?state=bounced"
    await row(page, "bounce@example.org").wait_for()
    await page.get_by_label("Lane", exact=True).select_option("bulk")
    await page.get_by_text("No message matches.").wait_for()
    await page.go_back()
    await row(page, "bounce@example.org").wait_for()
    await page.reload()
    await row(page, "bounce@example.org").wait_for()
    assert await page.get_by_label("State", exact=True).input_value() == "bounced"
    await page.goto(f"{scene.url}/?failed=1&since=1h")
    await row(page, "bounce@example.org").wait_for()
    assert await page.get_by_label("Failed only").is_checked()
    assert await row(page, "ann@gmail.com").count() == 0


async def test_a_message_shows_its_phases_attempts_events_and_when_it_was_delivered(page: Page, scene: Scene) -> None:
    await page.goto(f"{scene.url}/m/{scene.ids['ann']}")
    await page.get_by_text(scene.ids["ann"]).first.wait_for()
    phases = await page.locator(".chart tbody th[scope=row]").all_inner_texts()
    assert [one for one in phases if one in ("receive", "classify", "store", "wait", "envelope", "data", "delivered")]
    assert phases.index("receive") < phases.index("store") < phases.index("envelope") < phases.index("delivered")
    bars = page.locator(".chart rect.bar")
    assert await bars.count() == len(phases)
    widths = await bars.evaluate_all("bars => bars.map((bar) => bar.getBoundingClientRect().width)")
    assert min(widths) > 1
    shown = await page.locator("main").inner_text()
    assert re.search(r"1\. postmark\s+sent", shown)
    assert "250 2.0.0" in shown
    for kind in ("accepted", "sent", "delivered"):
        assert await page.locator(".log .pill", has_text=kind).count() >= 1
    assert await page.get_by_role("button", name="Drop").count() == 0


async def test_a_failover_shows_both_upstreams_and_what_the_first_replied(page: Page, scene: Scene) -> None:
    await page.goto(f"{scene.url}/m/{scene.ids['failover']}")
    await page.get_by_text("Attempt 2: ses").wait_for()
    await page.get_by_text("Attempt 1: postmark").wait_for()
    await page.locator(".log code", has_text="451 4.7.1 too many connections").first.wait_for()


async def test_hold_release_retry_and_drop_each_ask_once_more(page: Page, scene: Scene) -> None:
    message_id = await scene.send("later@hold.example.net", "deferred")
    await page.goto(f"{scene.url}/m/{message_id}")
    hold = page.get_by_role("button", name="Hold", exact=True)
    await hold.click()
    await page.get_by_role("dialog", name="Hold this message?").wait_for()
    await page.keyboard.press("Escape")
    await page.get_by_role("dialog").wait_for(state="detached")
    assert await hold.evaluate("button => button === document.activeElement")
    await time_line(scene.relay, message_id, "deferred")
    await confirm(page, "Hold")
    await page.get_by_role("status").filter(has_text="1 message held").wait_for()
    await time_line(scene.relay, message_id, "held")
    assert await hold.count() == 0
    await confirm(page, "Release")
    await time_line(scene.relay, message_id, "deferred")
    await confirm(page, "Retry")
    await page.get_by_text("operator").first.wait_for()
    await time_line(scene.relay, message_id, "deferred")
    await confirm(page, "Drop")
    await time_line(scene.relay, message_id, "bounced")
    await page.get_by_role("status").filter(has_text="1 message dropped").wait_for()
    assert await page.get_by_role("button", name="Drop").count() == 0


async def test_a_button_that_no_longer_applies_keeps_the_focus_until_the_reader_moves_on(
    page: Page, scene: Scene
) -> None:
    message_id = await scene.send("later@focus.example.net", "deferred")
    await page.goto(f"{scene.url}/m/{message_id}")
    hold = page.get_by_role("button", name="Hold", exact=True)
    await hold.focus()
    assert (await post(scene.relay, "/api/queue/drop", {"ids": [message_id]})).status == 200
    await page.get_by_role("button", name="Retry").wait_for(state="detached")
    assert await hold.evaluate("button => button === document.activeElement")


async def test_the_queue_acts_on_what_is_ticked_and_on_a_whole_lane(page: Page, scene: Scene) -> None:
    first = await scene.send("later@tick.example.net", "deferred", sender=BULK)
    second = await scene.send("later@lane.example.net", "deferred", sender=BULK)
    await page.get_by_role("link", name="Queue").click()
    await page.get_by_label("Tick the mail to later@tick.example.net").check()
    await page.get_by_role("button", name="Hold", exact=True).click()
    await page.get_by_role("dialog", name="Hold 1 message?").get_by_role("button", name="Hold").click()
    await time_line(scene.relay, first, "held")
    assert (await time_line(scene.relay, second, "deferred"))["id"] == second
    await page.get_by_label("Act on").select_option("lane:bulk")
    await page.get_by_role("button", name="Drop", exact=True).click()
    dialog = page.get_by_role("dialog", name="Drop 2 recipients of lane bulk?")
    assert await dialog.get_by_role("button", name="Cancel").evaluate("button => button === document.activeElement")
    await dialog.get_by_role("button", name="Drop").click()
    await page.get_by_role("status").filter(has_text="2 messages dropped").wait_for()
    await time_line(scene.relay, first, "bounced")
    await time_line(scene.relay, second, "bounced")
    await time_line(scene.relay, scene.ids["later"], "deferred")


async def test_new_mail_comes_in_by_itself_and_takes_no_focus_selection_or_scroll(page: Page, scene: Scene) -> None:
    await page.locator("article").first.wait_for()
    box = page.get_by_role("searchbox")
    await box.focus()
    await scene.send("new1@example.net", sender=BULK)
    await row(page, "new1@example.net").wait_for()
    assert await box.evaluate("box => box === document.activeElement")
    # Where the reader is at work in the table the rows stay, and a button says that there are more.
    link = row(page, "ann@gmail.com").get_by_role("link")
    await link.focus()
    before = await link.bounding_box()
    await scene.send("new2@example.net", sender=BULK)
    button = page.get_by_role("button", name="1 new")
    await button.wait_for()
    assert await row(page, "new2@example.net").count() == 0
    assert await link.evaluate("link => link === document.activeElement")
    after = await link.bounding_box()
    assert before is not None
    assert after is not None
    assert after["y"] == before["y"]
    await button.click()
    await row(page, "new2@example.net").wait_for()


async def test_an_update_leaves_a_selection_and_an_open_dialog_alone(page: Page, scene: Scene) -> None:
    lane = page.locator("article").filter(has=page.get_by_role("heading", name="bulk"))
    text = lane.get_by_text(re.compile(r"\d+ sent in"))
    await text.evaluate("node => getSelection().selectAllChildren(node)")
    chosen = await page.evaluate("getSelection().toString()")
    await scene.send("new3@example.net", "sent", sender=BULK)
    await row(page, "new3@example.net").wait_for()
    await page.wait_for_timeout(1_100)  # the lanes are written each second
    assert await page.evaluate("getSelection().toString()") == chosen
    await page.keyboard.press("?")
    await page.evaluate("getSelection().removeAllRanges()")
    dialog = page.get_by_role("dialog", name="Keys")
    await lane.get_by_text(chosen, exact=True).wait_for(state="detached")
    assert await dialog.get_by_role("button", name="Close").evaluate("button => button === document.activeElement")
    await page.keyboard.press("Escape")
    await dialog.wait_for(state="detached")


async def test_the_head_is_green_only_while_every_lane_can_send(page: Page, scene: Scene) -> None:
    status = page.locator("#status")
    await status.filter(has_text="every lane can send").wait_for()
    assert "ok" in str(await status.get_attribute("class"))
    await scene.send("x@example.net", sender=DEAD)
    await status.filter(has_text="offers can't send (spare down: ").wait_for()
    assert "bad" in str(await status.get_attribute("class"))
    await page.locator("article").filter(has_text="this server is closed").wait_for()


async def test_what_never_arrived_is_in_the_bar_and_in_words(page: Page, scene: Scene) -> None:
    lane = page.locator("article").filter(has=page.get_by_role("heading", name="otp"))
    await lane.get_by_text(re.compile(r"\d+ bounced")).wait_for()
    assert await lane.locator(".bands rect.bounced").evaluate("bar => bar.getBoundingClientRect().width") > 3


async def test_an_address_is_suppressed_found_and_let_go(page: Page, scene: Scene) -> None:
    await page.get_by_role("link", name="Suppressions").click()
    await page.get_by_text("Add an address").click()
    await page.get_by_label("Address", exact=True).fill("nomail@example.org")
    await page.get_by_label("Reason").fill("asked by phone")
    await page.get_by_label("How long").select_option("30d")
    await page.get_by_role("button", name="Add", exact=True).click()
    await row(page, "asked by phone").wait_for()
    await page.get_by_role("searchbox").fill("nomail")
    await page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    await page.get_by_role("button", name="Remove nomail@example.org").click()
    await page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    await page.get_by_text("No entry matches.").wait_for()
    found = (await get(scene.relay, "/api/suppressions?address=nomail@example.org")).document
    assert found == []


async def test_the_configuration_is_shown_with_its_secrets_masked(page: Page, scene: Scene) -> None:
    await page.get_by_role("link", name="Configuration").click()
    yaml = page.get_by_role("region", name="The configuration as YAML")
    await yaml.wait_for()
    text = await yaml.inner_text()
    assert "upstreams:" in text
    assert "postmark" in text
    assert SECRET not in await page.content()


async def test_each_view_has_a_url_and_is_no_wider_than_a_phone(browser: Browser, scene: Scene) -> None:
    wide = "nodes => nodes.filter((node) => node.getBoundingClientRect().right > 391).map((node) => node.outerHTML)"
    async with opened(browser, scene.url, viewport={"width": 390, "height": 844}, has_touch=True) as page:
        for view in VIEWS:
            await visit(page, view)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 390, view
            assert await page.locator("main button, main input, main td > div").evaluate_all(wide) == [], view
        await page.goto(f"{scene.url}/m/{scene.ids['two']}")
        await page.get_by_role("heading", name="later@web.de").wait_for()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390


async def visit(page: Page, view: str) -> None:
    """Follow the link to a view, and wait until the view has what it asks the API for."""
    await page.get_by_role("navigation").get_by_role("link", name=HEADINGS[view]).click()
    await page.wait_for_url(f"**{view}")
    await page.get_by_role("heading", name=HEADINGS[view], level=1).wait_for(state="attached")
    await page.locator("#about", has_text="otp-relay").wait_for()
    await page.wait_for_function("() => !document.querySelector('.loading')")
    assert await page.locator(".failure").count() == 0


async def test_axe_finds_nothing_on_any_view_in_light_and_in_dark(browser: Browser, scene: Scene) -> None:
    axe = axe_file().read_text()
    async with opened(browser, scene.url) as page:
        for view in VIEWS:
            await visit(page, view)
            assert await violations(page, axe) == [], view
        await page.goto(f"{scene.url}/m/{scene.ids['two']}")
        await page.get_by_role("heading", name="later@web.de").wait_for()
        await page.get_by_role("button", name="Drop").click()
        await page.get_by_role("dialog").wait_for()
        assert await violations(page, axe) == []
        await page.keyboard.press("Escape")
        assert await violations(page, axe) == []


async def test_times_carry_the_readers_zone_and_the_icon_is_there(browser: Browser, scene: Scene) -> None:
    async with opened(browser, scene.url, timezone_id="Asia/Kolkata") as page:
        await row(page, "ann@gmail.com").wait_for()
        shown = await row(page, "ann@gmail.com").locator("time").inner_text()
        assert re.fullmatch(r"\d\d \w{3} \d\d:\d\d:\d\d GMT\+5:30", shown)
    icon = await get(scene.relay, "/favicon.ico")
    assert icon.status == 200
    assert icon.headers["content-type"].startswith("image/svg+xml")


async def test_a_message_that_is_not_there_is_said_in_words(browser: Browser, scene: Scene) -> None:
    async with opened(browser, f"{scene.url}/m/01NOPE", errors=["404"]) as page:
        await page.get_by_role("alert").filter(has_text="no such message").wait_for()


async def test_a_reading_token_gets_no_buttons_and_a_lost_relay_is_said(browser: Browser, tmp_path: Path) -> None:
    async with Upstream(script={"rcpt": "451 4.2.0 later"}) as upstream:
        http = {"address": "127.0.0.1:0", "token": "may-do-everything-1", "read_token": "may-only-read-12"}
        async with RelayProcess(write_config(tmp_path, {"one": upstream}, http=http)) as relay:
            scene = Scene(relay, upstream)
            message_id = await scene.send("a@example.net", sender=BULK)
            login = {"username": "any", "password": "may-only-read-12"}
            url = f"{scene.url}/m/{message_id}"
            async with opened(browser, url, http_credentials=login, errors=["ERR_"]) as page:
                await page.get_by_role("heading", name="a@example.net").wait_for()
                await page.get_by_text("this token may read").wait_for()
                assert await page.get_by_role("button", name="Drop").count() == 0
                await relay.kill()
                await page.locator("#status", has_text=re.compile(r"no answer since \d\d:\d\d:\d\d \S+")).wait_for()


LANE: dict[str, object] = {"queue": {}, "bands": {}, "latest_ms": []}


@pytest.mark.parametrize(
    ("states", "reasons", "tone", "sentence"),
    [
        ({"ses": "up"}, [], "ok", "Takes mail; every lane can send"),
        ({"ses": "untried"}, [], "ok", "Takes mail; every lane can send"),
        ({"ses": "down", "postmark": "up"}, [], "warn", "Takes mail; every lane can send, but without ses"),
        ({"ses": "down"}, [], "bad", "Takes mail, but otp can't send (ses down)"),
        ({"ses": "down", "postmark": "half-open"}, [], "bad", "can't send (ses down, postmark half-open)"),
        ({"ses": "up"}, ["draining"], "bad", "Takes no mail: draining"),
    ],
)
async def test_the_heads_sentence_names_the_worst(
    script_page: Page, states: dict[str, str], reasons: list[str], tone: str, sentence: str
) -> None:
    lane = {**LANE, "upstreams": {name: {"state": state} for name, state in states.items()}}
    live = {"reasons": reasons, "lanes": {"otp": lane}}
    script = "async (live) => (await import('/static/status.js')).judged(live)"
    found = await script_page.evaluate(script, live)
    assert found[0] == tone
    assert sentence in found[1]


async def test_a_long_wait_is_drawn_short_and_the_phases_around_it_to_scale(script_page: Page) -> None:
    script = """async () => {
      const { axisOf } = await import('/static/timeline.js');
      const axis = axisOf([
        { kind: "relay", start: 0, length: 10 }, { kind: "upstream", start: 10, length: 30 },
        { kind: "idle", start: 40, length: 60000 }, { kind: "upstream", start: 60040, length: 40 },
      ]);
      return { at: [0, 10, 40, 60040, 60080].map(axis.x), gaps: axis.gaps.map((gap) => gap.length) };
    }"""
    found = await script_page.evaluate(script)
    start, ten, forty, again, end = found["at"]
    assert found["gaps"] == [60_000]
    assert (start, end) == (0, pytest.approx(100))
    assert (forty - ten) / (ten - start) == pytest.approx(3)
    assert again - forty < 10
    assert end - again == pytest.approx(forty - start)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.44, "0.4 ms"),
        (41.2, "41 ms"),
        (999.7, "1.0 s"),
        (59_960, "1 min"),
        (65_000, "1 min 5 s"),
        (7_500_000, "2 h 5 min"),
    ],
)
async def test_a_duration_is_in_the_unit_that_people_say(script_page: Page, ms: float, text: str) -> None:
    assert await script_page.evaluate("async (ms) => (await import('/static/format.js')).duration(ms)", ms) == text
