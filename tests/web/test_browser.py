"""The pages in a real browser: they render, stay quiet, ask nobody else, and are inert to hostile text."""

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.web.conftest import Site
from tests.web.fake_cluster import HOSTILE_GROUP, LONG
from tests.web.fake_fleet import HOSTILE_HOST, HOSTILE_LINE, iso

HOST = "/health/host?name=" + quote(HOSTILE_HOST, safe="")
GROUP = "/groups/" + quote(HOSTILE_GROUP, safe="")
PAGES = [
    "/",
    "/alarms",
    HOST,
    "/overview",
    "/topics",
    "/topics/health",
    "/topics/server-metrics/3?at=900000",
    "/groups",
    GROUP,
    "/cluster",
    "/tables",
    "/tables/minutes",
    "/agents",
    "/why",
]
MARKS = {
    "/": "Hosts, most urgent first",
    "/alarms": "DiskFull",
    HOST: "Memory and disk",
    "/overview": "Events per second",
    "/topics": "server-metrics",
    "/topics/health": "Records written per second",
    "/topics/server-metrics/3?at=900000": "Newest",
    "/groups": "alertmanager-sink",
    GROUP: "cooperative-sticky",
    "/cluster": "1 – 25 of 10\u202f000 connections",
    "/tables": "minutes",
    "/tables/minutes": "web-07",
    "/agents": "describe",
    "/why": "cannot go on",
}


RANGE = "document.querySelector('.chart').layout.xaxis.range.map((t) => +new Date(t))"


def until(page: Page, condition: str) -> None:
    """Wait for a JavaScript expression; Playwright's own `wait_for_function` needs what our policy forbids."""
    page.evaluate(f"async () => {{ while (!({condition})) await new Promise(requestAnimationFrame); }}")


def wait_for_ticks(page: Page, count: int) -> None:
    """Wait until the page has drawn `count` more snapshots."""
    page.evaluate(
        """async (count) => {
          const { on } = await import('/static/frame.js');
          await new Promise((resolve) => on('status', () => count-- <= 0 && resolve()));
        }""",
        count,
    )


class Watch:
    """What a page must not do."""

    def __init__(self, page: Page, base: str) -> None:
        self.complaints: list[str] = []
        page.on(
            "console",
            lambda m: self.complaints.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.on(
            "request", lambda r: None if r.url.startswith((base, "data:")) else self.complaints.append(f"asked {r.url}")
        )


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=site.server.url, viewport={"width": 1380, "height": 900})
    context.set_default_timeout(15_000)
    yield context
    context.close()


def opened(context: BrowserContext, site: Site, path: str) -> tuple[Page, Watch]:
    page = context.new_page()
    watch = Watch(page, site.server.url)
    page.goto(path)
    expect(page.locator("main")).to_contain_text(MARKS.get(path, ""))
    expect(page.locator("#state")).not_to_contain_text("connecting")
    return page, watch


@pytest.mark.parametrize("path", PAGES)
def test_a_page_renders_quietly_and_asks_no_other_host(context: BrowserContext, site: Site, path: str) -> None:
    page, watch = opened(context, site, path)
    if page.locator(".chart").count():
        expect(page.locator(".chart svg.main-svg").first).to_be_visible()
    expect(page.locator("nav a[aria-current]")).to_have_count(0 if path == HOST else 1)
    assert page.evaluate("window.hit") is None
    assert watch.complaints == []


def test_a_phone_never_scrolls_sideways(browser: Browser, site: Site) -> None:
    context = browser.new_context(
        base_url=site.server.url,
        viewport={"width": 390, "height": 844},
        color_scheme="dark",
        is_mobile=True,
        has_touch=True,
    )
    for path in PAGES:
        page, watch = opened(context, site, path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert watch.complaints == []
        page.close()
    context.close()


def test_dark_and_light_follow_the_system_and_are_readable(context: BrowserContext, site: Site) -> None:
    page, _ = opened(context, site, "/")
    seen = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        ratio, background = page.evaluate(
            """() => {
              const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
              const light = (c) => { const [r, g, b] = rgb(c).map((v) => v / 255)
                .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
              const card = getComputedStyle(document.querySelector('.card')).backgroundColor;
              const parts = ['.kpi small', '.kpi strong', '.host .label', '.host .what', '.sev', '.since', '.alarm a'];
              const inks = parts.map((s) => getComputedStyle(document.querySelector(s)).color);
              return [Math.min(...inks.map((ink) => { const [a, b] = [light(ink), light(card)].sort((x, y) => y - x);
                return (a + 0.05) / (b + 0.05); })), card];
            }"""
        )
        assert ratio >= 4.5, scheme  # WCAG AA
        seen.append(background)
    assert seen[0] != seen[1]


def test_hostile_names_and_lines_are_text(context: BrowserContext, site: Site) -> None:
    page, watch = opened(context, site, "/")
    expect(page.get_by_role("heading", name=HOSTILE_HOST)).to_be_visible()
    expect(page.locator(".loglines").first).to_contain_text("<script>window.hit='script'</script>")
    page.goto(HOST)
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE_HOST)
    lines = page.locator(".loglines")
    expect(lines).to_contain_text("<img src=x onerror=\"window.hit='line'\">")
    # A mark that would turn the reading order around, and a terminal escape, are shown and not obeyed.
    assert "\u202e" in HOSTILE_LINE
    assert "\u202e" not in lines.inner_text()
    assert "\u241b[31m" in lines.inner_text()
    assert page.locator("main img, main script, main b:text-is('app')").count() == 0
    assert page.evaluate("window.hit") is None
    assert watch.complaints == []


def test_hosts_are_ordered_by_urgency_and_say_it_in_words(context: BrowserContext, site: Site) -> None:
    page, _ = opened(context, site, "/")
    cards = page.locator(".host")
    expect(cards).to_have_count(25)
    expect(cards.nth(0)).to_have_attribute("aria-label", re.compile("^web-07, DiskFull"))
    expect(cards.nth(1)).to_have_attribute("aria-label", re.compile("^db-02, HighCpu"))
    expect(cards.nth(2)).to_have_attribute("aria-label", re.compile("^cache-01, HostSilent"))
    expect(cards.nth(0).locator("svg .threshold")).to_have_count(1)


def test_an_alarm_tells_its_story_down_to_the_records(context: BrowserContext, site: Site) -> None:
    page, watch = opened(context, site, "/alarms")
    story = page.locator("article", has_text="DiskFull").first
    for words in (
        "fires above 95",
        "clears below 90",
        "mean of 60",
        "nginx",
        "No space left on device",
        "3.6 GB are left",
    ):
        expect(story).to_contain_text(words)
    expect(story.locator(".picture .threshold").first).to_be_attached()
    expect(story.locator(".picture .shade")).to_have_count(1)
    expect(story.locator(".picture .tick").first).to_be_attached()
    story.get_by_role("link", name="syslog-3 @").click()
    expect(page).to_have_url(re.compile(r"/topics/syslog/3\?at=55190&to=55192"))
    expect(page.locator("main")).to_contain_text("retention has moved the start of the log")
    assert watch.complaints == []


def test_a_link_to_a_record_opens_and_marks_it(context: BrowserContext, site: Site) -> None:
    page, _ = opened(context, site, "/topics/server-metrics/3?at=900000")
    marked = page.locator(".marked")
    expect(marked).to_have_count(1)
    expect(marked.locator("details")).to_have_attribute("open", "")
    expect(marked).to_contain_text("9007199254740993")  # every digit of it
    page.get_by_role("button", name="Later").first.click()
    expect(page).to_have_url(re.compile(r"offset=900045"))
    expect(page.locator(".records li").first).to_contain_text("900\u202f045")
    page.go_back()
    expect(page.locator(".marked")).to_have_count(1)


def test_pages_live(context: BrowserContext, site: Site) -> None:
    page, watch = opened(context, site, "/")
    expect(page.locator(".host", has_text="new-host")).to_have_count(0)
    now_ms = site.clock.now_ms()
    reading = {"host": "new-host", "time": iso(now_ms), "cpu": 12.0, "metrics": {}}
    site.call(lambda: site.board.health(reading))
    expect(page.locator(".host", has_text="new-host")).to_contain_text("12")
    alarm = site.fleet.alarms()[1] | {
        "id": "new",
        "labels": {"host": "new-host"},
        "severity": "critical",
        "fired_ms": now_ms,
        "records": [],
        "context": {},
        "annotations": {},
    }
    site.call(lambda: site.board.alarm(alarm))
    expect(page.locator(".host").first).to_contain_text("new-host")
    expect(page.locator("nav .badge")).to_have_text("4")
    site.call(lambda: site.board.alarm(alarm | {"state": "resolved", "sequence": 9, "resolved_ms": now_ms}))
    expect(page.locator("nav .badge")).to_have_text("3")
    assert watch.complaints == []


def test_an_update_keeps_focus_and_what_was_opened(context: BrowserContext, site: Site) -> None:
    page, _ = opened(context, site, "/")
    page.locator(".host", has_text="web-11").focus()
    closed = page.locator("article", has_text="db-02").locator("details")
    closed.locator("summary").click()
    wait_for_ticks(page, 3)
    assert closed.get_attribute("open") == ""
    page.locator(".host", has_text="web-11").focus()
    reading = {"host": "web-11", "time": iso(site.clock.now_ms()), "cpu": 77.0, "metrics": {}}
    site.call(lambda: site.board.health(reading))
    expect(page.locator(".host", has_text="web-11")).to_contain_text("77")
    assert page.evaluate("document.activeElement.textContent").startswith("web-11")


def test_updates_move_nothing(context: BrowserContext, site: Site) -> None:
    page, _ = opened(context, site, "/overview")
    page.evaluate(
        """() => { window.moved = 0;
          new PerformanceObserver((list) => { for (const entry of list.getEntries()) window.moved += entry.value; })
          .observe({ type: 'layout-shift' }); }"""
    )
    wait_for_ticks(page, 3)
    assert page.evaluate("window.moved") < 0.01


def test_the_keyboard_reaches_everything(context: BrowserContext, site: Site) -> None:
    page, _ = opened(context, site, "/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") == 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className").startswith("card host")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/health/host\?name=web-07"))
    expect(page.get_by_role("heading", level=1)).to_have_text("web-07")


def test_charts_zoom_and_keep_the_zoom(context: BrowserContext, site: Site) -> None:
    page, watch = opened(context, site, "/health/host?name=web-07")
    chart = page.locator(".chart").first
    expect(chart).to_have_attribute("data-drawn", "plotly")
    area = chart.locator(".nsewdrag").first.bounding_box()
    assert area is not None
    before = page.evaluate(RANGE)
    page.mouse.move(area["x"] + area["width"] * 0.3, area["y"] + area["height"] / 2)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.6, area["y"] + area["height"] / 2, steps=5)
    page.mouse.up()
    until(page, f"(() => {{ const [a, b] = {RANGE}; return b - a < {(before[1] - before[0]) * 0.5}; }})()")
    zoomed = page.evaluate(RANGE)
    newest = "document.querySelector('.chart').data[0].x.at(-1)"
    drawn = page.evaluate(newest)
    reading = site.fleet.health("web-07", site.clock.now_ms())
    site.call(lambda: site.board.health(reading))
    until(page, f"{newest} !== {drawn!r}")
    assert page.evaluate(RANGE) == zoomed
    assert watch.complaints == []


def test_a_lost_connection_is_said_and_found_again(context: BrowserContext, site: Site) -> None:
    page, _ = opened(context, site, "/overview")
    site.stop_listening()
    banner = page.locator("#banner")
    expect(banner).to_be_visible()
    expect(banner).to_contain_text("Connection lost at")
    expect(page.locator("#state")).to_have_text("not connected")
    site.listen()
    expect(banner).to_be_hidden()
    expect(page.locator("#state")).not_to_have_text("not connected")


def test_rows_are_found_while_one_types(context: BrowserContext, site: Site) -> None:
    page, watch = opened(context, site, "/tables/minutes")
    page.get_by_label("key starts with").fill("web-2")
    expect(page.locator("tbody tr")).to_have_count(5)
    page.get_by_label("key starts with").fill("nobody")
    expect(page.locator("main")).to_contain_text("No key starts with that")
    assert watch.complaints == []


def test_why_nothing_names_what_holds_an_agent_back(context: BrowserContext, site: Site) -> None:
    page, _ = opened(context, site, "/why")
    first = page.locator(".finding").first
    expect(first).to_contain_text("notify")
    expect(first).to_contain_text("fails with ConnectionRefusedError and is tried again")
    expect(page.locator(".finding", has_text="count_logins")).to_contain_text("Nothing has come in: logins is empty.")


def test_the_cluster_shows_a_page_of_many_and_leads_to_the_others(context: BrowserContext, site: Site) -> None:
    page, watch = opened(context, site, "/cluster")
    nodes = page.get_by_role("region", name="Nodes").locator("tbody tr")
    expect(nodes).to_have_count(3)
    expect(nodes.nth(0)).to_contain_text("controller")
    expect(nodes.nth(2)).to_contain_text("does not answer")
    partitions = page.locator("section[aria-label='Partitions']")
    expect(partitions.locator("tbody tr")).to_have_count(25)
    expect(partitions).to_contain_text("1 – 25 of 1\u202f016 partitions")
    expect(partitions.locator("tbody tr").first).to_contain_text("not 3")
    partitions.get_by_label("topic").fill("server-m")
    expect(partitions.locator("tbody tr")).to_have_count(8)
    partitions.get_by_label("topic").fill("nothing like it")
    expect(partitions).to_contain_text("Nothing has “nothing like it” in it.")
    connections = page.locator("section[aria-label='Connections']")
    connections.get_by_label("order").select_option("requests")
    expect(connections.locator("tbody tr").first).to_contain_text(":49999")
    connections.get_by_role("button", name="after").click()
    expect(connections).to_contain_text("26 – 50 of 10\u202f000 connections")
    expect(connections.locator("tbody tr").first).to_contain_text(":49974")
    assert watch.complaints == []


def test_a_group_shows_its_members_what_they_read_and_how_late_they_are(context: BrowserContext, site: Site) -> None:
    page, watch = opened(context, site, GROUP)
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE_GROUP)
    members = page.locator("section[aria-label='Members'] tbody tr")
    expect(members).to_have_count(40)
    row = members.filter(has_text="reader-02")
    expect(row).to_contain_text("events 50–74")
    expect(row.locator(".long")).to_have_attribute("title", f"{LONG}2")
    partitions = page.locator("section[aria-label='Partitions']")
    expect(partitions.locator("tbody tr").nth(3)).to_contain_text("997")
    expect(partitions.locator("tbody tr").nth(3)).to_contain_text("3\u202fh")
    for number in range(1, 10):
        partitions.get_by_role("button", name="after").click()
        expect(partitions.locator("tbody tr").first).to_contain_text(f"events-{100 * number}")
    expect(partitions.locator("tbody tr").first).to_contain_text("nothing")
    assert page.evaluate("window.hit") is None
    assert watch.complaints == []


def test_a_group_that_is_not_there_is_said_to_be_so(context: BrowserContext, site: Site) -> None:
    page, _ = opened(context, site, "/groups/nobody")
    expect(page.locator(".blank")).to_contain_text("there is no group 'nobody'")


def test_every_page_of_an_empty_worker_says_what_to_do(browser: Browser) -> None:
    site = Site(empty=True)
    context = browser.new_context(base_url=site.server.url)
    words = {
        "/": "No host has reported yet",
        "/alarms": "No alarm since the start",
        "/overview": "No agents",
        "/topics": "No topics yet",
        "/groups": "No groups yet",
        "/cluster": "No nodes",
        "/tables": "No tables",
        "/agents": "No agents",
        "/why": "No agents",
        "/topics/nope": "There is no topic nope",
        "/health/host?name=nobody": "Nothing is known of nobody",
    }
    for path, expected in words.items():
        page = context.new_page()
        watch = Watch(page, site.server.url)
        page.goto(path)
        expect(page.locator(".blank").first).to_contain_text(expected)
        assert watch.complaints == [], path
        page.close()
    context.close()
    site.close()


def test_without_plotly_a_chart_is_a_plain_picture_that_says_so(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    page.add_init_script(
        "document.addEventListener('readystatechange', () => document.documentElement.dataset.plotly = '')"
    )
    page.goto("/topics/health")
    expect(page.locator("figcaption")).to_contain_text("pip install plotly")
    expect(page.locator("figure svg.spark")).to_be_visible()
