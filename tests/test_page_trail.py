"""The page of the trail, used as a person does: filters, chart, table, one event; by mouse and keyboard."""

import json
import re
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from playwright.sync_api import Page, Route, expect

from browser import DESKTOP, PHONE, OpenPage, Watched, check_accessibility
from people import sign_in, signed_in
from tenants import Tenant, client, events, ids

TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
HOSTILE = (
    '<img src=x onerror="console.error(1)">',
    '"><script>console.error(2)</script>',
    "javascript:console.error(3)",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    '=HYPERLINK("http://evil.example")',
    "\u202egnp.exe\u2066 \u200b",
    "' autofocus onfocus='console.error(4)",
    "</td></tr></table><style>*{display:none}</style>",
    "a" * 256,
)


def rows(page: Page) -> list[str]:
    """The ids of the events in the table."""
    found = page.locator("#rows tr[id]").evaluate_all("rows => rows.map(row => row.id.slice(2))")
    return [str(each) for each in found]


def shown(text: str) -> str:
    """A text as the page shows it."""
    return "".join(rf"\u{ord(each):04x}" if each in TURNING else each for each in text)


def filters_of(url: str) -> list[tuple[str, str | int | float | bool | None]]:
    """The parameters of a URL."""
    return [*parse_qsl(urlsplit(url).query)]


def few(tenant: Tenant) -> list[str]:
    """Records a small trail, oldest first, of three hours."""
    return tenant.record(
        *(
            {
                "timestamp": f"2026-03-18T{10 + at // 8:02d}:{at % 8 * 7:02d}:00.00000{at % 10}Z",
                "resourceName": f"otlp-{at % 4}",
                "resourceKind": ("Source", "Destination")[at % 2],
                "action": ("Modified", "Created", "Deleted")[at % 3],
                "user": ("Ann@example.com", "bob@example.com")[at % 5 == 0],
                "configuration": f"gateway:{at % 3}" if at % 2 else "edge:1",
            }
            for at in range(24)
        )
    )


def test_a_person_signs_in_and_sees_the_newest_events_first(open_page: OpenPage, tenant: Tenant) -> None:
    recorded = few(tenant)
    _, secret = tenant.key("reader")
    watched = open_page(tenant.server.url)
    watched.allow("/live")
    page = watched.page
    page.goto("/?user=ann@example.com")
    expect(page).to_have_url(re.compile("/sign-in"))
    expect(page.get_by_label("API key")).to_be_focused()
    check_accessibility(page)
    watched.expect("status of 401")
    page.get_by_label("API key").fill(secret[:-1] + "x")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
    check_accessibility(page)
    page.get_by_label("API key").fill(secret)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/\?user=ann"))
    page.get_by_label("Remove User ann@example.com").click()
    assert [each for each in reversed(rows(page)) if each in recorded] == recorded


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True])
def test_every_state_of_the_trail_is_accessible(
    open_page: OpenPage, tenant: Tenant, scheme: str, phone: bool
) -> None:
    few(tenant)
    changed = {"before": {"a": 1, "b": ["x", "y"]}, "after": {"a": 2, "b": ["x"]}, "text": "one\ntwo"}
    (event_id,) = tenant.record(*events(1, details=changed, timestamp="2026-03-01T00:00:00Z"))
    screen = PHONE if phone else DESKTOP
    watched = signed_in(open_page, tenant, color_scheme=scheme, screen=screen)
    page = watched.page
    page.goto("/?user=ann@example.com&min-date=20260301&chart=kind")
    expect(page.locator(".chart canvas")).to_be_visible()
    check_accessibility(page)
    page.locator("#dates > summary").click()
    check_accessibility(page)
    page.goto(f"/events/{event_id}")
    expect(page.locator("#drawer")).to_be_visible()
    page.get_by_text("The event as it was recorded").click()
    check_accessibility(page)
    page.goto("/?user=nobody")
    expect(page.get_by_text("No event matches all of these filters")).to_be_visible()
    check_accessibility(page)
    watched.expect("status of 400")
    page.goto("/?usr=nobody")
    expect(page.get_by_role("alert").first).to_contain_text("did you mean user?")
    check_accessibility(page)


def test_filters_are_in_the_url_under_the_names_of_the_api_and_show_what_the_api_shows(
    open_page: OpenPage, tenant: Tenant
) -> None:
    few(tenant)
    page = signed_in(open_page, tenant).page
    page.goto("/")
    page.locator("#f-user").fill("ANN@example.com")
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_have_count(1)
    page.locator("#f-configuration-name").fill("gateway")
    page.get_by_role("button", name="Filter").click()
    page.locator("#f-q").fill("otlp")
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_have_count(3)
    assert filters_of(page.url) == [
        ("user", "ANN@example.com"),
        ("configuration-name", "gateway"),
        ("q", "otlp"),
    ]
    answer = tenant.reader.get("/v1/audit-events", params=httpx2.QueryParams(filters_of(page.url))).json()
    assert rows(page) == ids(answer)
    expect(page.locator("#overview h2")).to_contain_text(f"{len(answer)} events")
    page.get_by_role("link", name="Clear all").click()
    expect(page).to_have_url(re.compile(r"/$"))


def test_suggestions_come_from_the_trail_and_one_is_taken_by_keyboard(
    open_page: OpenPage, tenant: Tenant
) -> None:
    few(tenant)
    page = signed_in(open_page, tenant).page
    page.goto("/")
    page.locator("#f-user").click()
    options = page.get_by_role("option")
    expect(options.first).to_contain_text("Ann@example.com")
    check_accessibility(page)
    page.keyboard.type("BO")
    expect(options).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"\?user=bob%40example\.com$"))
    page.locator("#f-resource-kind").click()
    page.keyboard.type("ource")
    options.first.click()
    assert filters_of(page.url) == [("user", "bob@example.com"), ("resource-kind", "Source")]
    page.locator("#f-action").click()
    expect(options.first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_have_count(0)


def test_dates_are_set_by_a_click_by_typing_and_by_the_picker(open_page: OpenPage, tenant: Tenant) -> None:
    few(tenant)
    tenant.record(*events(2))
    page = signed_in(open_page, tenant).page
    page.goto("/")
    page.locator("#dates > summary").click()
    page.get_by_role("link", name="Last hour").click()
    assert [name for name, _ in filters_of(page.url)] == ["min-date"]
    expect(page.locator("#rows tr[id]")).to_have_count(4)  # and two keys
    page.get_by_label("Remove From").click()
    page.locator("#dates > summary").click()
    page.locator("#f-min-date").fill("20260318")
    page.get_by_label("Picker of the end").evaluate(
        "(input) => { input.value = '2026-03-18T10:30:00'; input.dispatchEvent(new Event('input')); }"
    )
    page.get_by_role("button", name="Set the time").click()
    assert filters_of(page.url) == [("min-date", "20260318"), ("max-date", "2026-03-18T10:30:00Z")]
    expect(page.locator("#rows tr[id]")).to_have_count(5)


def test_dragging_over_the_chart_selects_a_range(open_page: OpenPage, tenant: Tenant) -> None:
    few(tenant)
    page = signed_in(open_page, tenant).page
    page.goto("/?q=otlp")
    box = page.locator(".u-over").bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 2, middle)
    expect(page.locator(".chart-tip")).to_contain_text("2026-03-18 10:")
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, middle, steps=3)
    page.mouse.up()
    expect(page).to_have_url(re.compile("max-date"))
    assert [name for name, _ in filters_of(page.url)] == ["q", "min-date", "max-date"]
    found = page.locator("#rows tr[id]").count()
    assert 8 < found < 16


def test_the_bars_filter_and_are_those_of_the_api(open_page: OpenPage, tenant: Tenant) -> None:
    few(tenant)
    page = signed_in(open_page, tenant).page
    page.goto("/?resource-kind=Source")
    users = page.locator(".top", has_text="Users").locator("a")
    counted = tenant.reader.get(
        "/v1/audit-events/count", params={"resource-kind": "Source", "user": "ann@example.com"}
    )
    expect(users.first).to_contain_text(str(counted.json()["count"]))
    users.first.click()
    assert filters_of(page.url) == [("resource-kind", "Source"), ("user", "Ann@example.com")]
    page.locator(".top", has_text="Users").locator("a[aria-current]").click()
    assert filters_of(page.url) == [("resource-kind", "Source")]
    page.get_by_role("group", name="Stack the chart by").get_by_role("link", name="Kind").click()
    expect(page.locator(".legend")).to_have_text("Source")


def test_rows_come_while_scrolling_each_once_and_at_most_2000_stay(
    open_page: OpenPage, tenant: Tenant
) -> None:
    recorded = tenant.record(*events(2_350, user="many"))
    page = signed_in(open_page, tenant).page
    page.goto("/?user=many")
    seen = dict.fromkeys(rows(page))
    assert len(seen) == 100
    while page.locator("#rows .more").count():
        before = rows(page)[-1]
        page.locator("#rows .more").scroll_into_view_if_needed()
        page.wait_for_function(
            "last => [...document.querySelectorAll('#rows tr[id]')].at(-1).id !== 'e-' + last", arg=before
        )
        seen.update(dict.fromkeys(rows(page)))
        assert len(rows(page)) <= 2_000
    assert list(seen) == recorded[::-1]
    page.get_by_role("link", name="back to the beginning").click()
    expect(page.locator("#rows tr").first).to_have_id(f"e-{recorded[-1]}")


def test_without_javascript_filters_pages_events_and_sorting_work(
    open_page: OpenPage, tenant: Tenant
) -> None:
    recorded = tenant.record(*events(250, user="many", details={"before": 1, "after": 2}))
    page = signed_in(open_page, tenant, java_script=False).page
    page.goto("/")
    page.locator("#f-user").fill("many")
    page.get_by_role("button", name="Filter").click()
    found = rows(page)
    for _ in range(2):
        page.get_by_role("link", name="Older events").click()
        found += rows(page)
    assert found == recorded[::-1]
    page.get_by_role("link", name="Back to the newest events").click()
    page.locator("#rows a.open").first.click()
    expect(page).to_have_url(re.compile(f"/events/{recorded[-1]}"))
    expect(page.locator("#drawer h2")).to_be_visible()
    page.get_by_role("link", name="Close").click()
    assert rows(page)[0] == recorded[-1]
    page.locator("th.c-time a").click()
    assert rows(page)[0] == recorded[0]


def test_the_drawer_has_an_address_and_back_and_escape_close_it(open_page: OpenPage, tenant: Tenant) -> None:
    recorded = few(tenant)
    page = signed_in(open_page, tenant).page
    page.goto("/?q=otlp")
    page.locator(f"#e-{recorded[-2]} .c-user").click()
    expect(page.locator("#drawer")).to_be_visible()
    expect(page.locator("#event-title")).to_be_focused()
    expect(page).to_have_url(re.compile(rf"/events/{recorded[-2]}\?q=otlp$"))
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile(f"/events/{recorded[-3]}"))
    page.reload()
    expect(page.locator("#drawer")).to_contain_text(recorded[-3])
    assert len(rows(page)) == 24
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()
    expect(page).to_have_url(re.compile(r"/\?q=otlp$"))
    page.locator(f"#e-{recorded[0]} a.open").click()
    expect(page.locator("#drawer")).to_contain_text(recorded[0])
    page.go_back()
    expect(page.locator("#drawer")).to_be_hidden()
    page.go_forward()
    expect(page.locator("#drawer")).to_contain_text(recorded[0])


def test_the_page_goes_by_keyboard(open_page: OpenPage, tenant: Tenant) -> None:
    recorded = few(tenant)
    page = signed_in(open_page, tenant).page
    page.goto("/?q=otlp")
    page.keyboard.press("/")
    expect(page.locator("#f-q")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    check_accessibility(page)
    page.keyboard.press("Escape")
    for key, current in (("j", -1), ("j", -2), ("k", -1), ("k", -1), ("j", -2)):
        page.keyboard.press(key)
        expect(page.locator("tr.is-current")).to_have_id(f"e-{recorded[current]}")
    page.keyboard.press("Enter")
    expect(page.locator("#drawer")).to_contain_text(recorded[-2])
    page.keyboard.press("Escape")
    expect(page.locator(f"#e-{recorded[-2]} a.open")).to_be_focused()


def test_one_event_shows_all_members_what_changed_and_when_it_was_recorded(
    open_page: OpenPage, tenant: Tenant
) -> None:
    before, after = ("\n".join(f"line {at}" for at in range(20) if at != left) for left in (7, 12))
    details = {"before": before, "after": after, "ratio": 1.0e2, "nested": {"deep": [True, None, "x"]}}
    common = {"resourceName": "syslog", "resourceKind": "Source", "configuration": "edge:7"}
    earlier, event_id, later = tenant.record(
        *events(1, **common, timestamp="2026-03-17T00:00:00Z"),
        *events(1, **common, timestamp="2026-03-18T00:00:00.000001Z", user="Ann", details=details),
        *events(1, **common, timestamp="2026-03-19T00:00:00Z"),
    )
    page = signed_in(open_page, tenant, role="admin").page
    page.goto(f"/events/{event_id}")
    drawer = page.locator("#drawer")
    assert drawer.locator("time").first.get_attribute("title") == "2026-03-18 00:00:00.000001 UTC"
    for text in ("syslog", "Source", "edge:7", "Ann", event_id, "after its time", "(test)"):
        expect(drawer).to_contain_text(text)
    assert drawer.locator(".diff del, .diff ins").all_inner_texts() == ["line 7", "line 12"]
    expect(drawer.locator(".diff .skipped").first).to_contain_text("lines are the same")
    assert drawer.locator(".node-value").all_inner_texts()[-4:] == ["100.0", "true", "null", "x"]
    expect(drawer.locator(".neighbours").first.locator("a")).to_have_attribute("href", re.compile(later))
    expect(drawer.locator(".neighbours").last.locator("a")).to_have_attribute("href", re.compile(earlier))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    drawer.get_by_label("Copy id", exact=True).click()
    expect(page.locator("#said")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == event_id
    drawer.get_by_text("The event as it was recorded").click()
    shown = json.loads(drawer.locator("#event-doc").inner_text())
    assert shown == tenant.reader.get(f"/v1/audit-events/{event_id}").json()
    drawer.get_by_role("link", name="All of this configuration").click()
    assert filters_of(page.url) == [("configuration-name", "edge")]
    page.goto(f"/events/{event_id}")
    drawer.get_by_role("link", name="All by this user").click()
    assert rows(page) == [event_id]


def test_only_the_stamp_tells_what_the_server_says_from_what_a_writer_does(
    open_page: OpenPage, tenant: Tenant
) -> None:
    """A writer's copy of an event of the server's own; in the proof, the log and on the page."""
    tenant.admin.put("/v1/retention", json={"days": 3_000})
    (told,) = tenant.docs(resource_kind="AuditTrail")
    writer_id, writer = tenant.key("writer")
    copy = {name: value for name, value in told.items() if name not in ("id", "timestamp")}
    with client(tenant.server.url, writer) as posted:
        (copied,) = posted.post("/v1/audit-events", json=copy).json()["ids"]
    assert {**copy, "id": "", "timestamp": ""} == {**tenant.docs()[0], "id": "", "timestamp": ""}
    lines = tenant.reader.get(f"/v1/log/{tenant.account}/events").text.splitlines()
    by = {entry["event"]["id"]: entry["stamp"]["by"] for entry in map(json.loads, lines)}
    page = signed_in(open_page, tenant, role="admin").page
    for event_id, expected in ((told["id"], "auditplane"), (copied, writer_id)):
        proof = tenant.reader.get(f"/v1/audit-events/{event_id}/proof").json()
        assert json.loads(proof["stamp"])["by"] == by[event_id] == expected
        page.goto(f"/events/{event_id}")
        expect(page.locator(".members div").filter(has_text="By key")).to_contain_text(expected)


def test_hostile_texts_are_only_ever_text(open_page: OpenPage, tenant: Tenant) -> None:
    """In every member that takes them, in the table, the drawer, the chips, the bars and the suggestions."""
    recorded = tenant.record(
        *(
            {
                "resourceName": text,
                "resourceKind": "Source",
                "action": text[:64],
                "user": text,
                "configuration": text[:250] + ":1",
                "description": text,
                "details": {"before": {text: text}, "after": {text: [text]}, text: {text: text}},
            }
            for text in HOSTILE
        )
    )
    page = signed_in(open_page, tenant).page
    page.goto("/?resource-kind=Source&chart=action")
    expect(page.locator(".chart canvas")).to_be_visible()
    for text, event_id in zip(HOSTILE, recorded, strict=True):
        for cell in ("c-name", "c-user", "c-description"):
            assert page.locator(f"#e-{event_id} .{cell}").text_content() == shown(text)
        page.locator(f"#e-{event_id} .c-kind").click()
        expect(page.locator(".event-description")).to_have_text(shown(text))
        assert page.locator("#drawer .member-value").nth(1).text_content() == shown(text)
        assert page.locator("#drawer script, #drawer img, #drawer style").count() == 0
        page.get_by_role("link", name="All by this user").click()
        expect(page.locator(".chip-value")).to_have_text(shown(text))
        assert rows(page) == [event_id]
        page.locator("#f-user").click()
        expect(page.get_by_role("option").first).to_be_visible()
        page.go_back()
        page.go_back()
        expect(page.locator("#drawer")).to_be_hidden()
    hrefs = page.locator("a").evaluate_all("links => links.map(link => link.href)")
    assert all(href.startswith(tenant.server.url) for href in hrefs)


def test_nothing_turns_the_text_beside_it(open_page: OpenPage, tenant: Tenant) -> None:
    """What would is shown in its place, wherever a text is; what is copied, searched or verified has it."""
    text = rf"a{TURNING}\u202e\\b"
    (event_id,) = tenant.record(
        {
            "resourceName": text, "resourceKind": "Source", "action": text, "user": text,
            "configuration": text, "description": text,
            "details": {"before": {text: text}, "after": {text: [text]}, text: {text: [text]}},
        }
    )  # fmt: skip
    page = signed_in(open_page, tenant).page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/?resource-kind=Source")
    expect(page.locator(".legend")).to_have_text(shown(text))
    page.locator(".chart .u-over").hover()
    expect(page.locator(".chart-tip")).to_contain_text(f"{shown(text)} 1")
    assert page.locator(".top-text").first.text_content() == shown(text)
    page.goto(f"/events/{event_id}")
    page.get_by_label("Copy user").click()
    expect(page.locator("#said")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == text
    page.get_by_text("The event as it was recorded").click()
    as_text = page.locator("#event-doc").inner_text()
    assert json.loads(as_text) == tenant.reader.get(f"/v1/audit-events/{event_id}").json()
    page.get_by_role("button", name="Verify in this browser").click()
    expect(page.locator(".proof-status")).to_have_text("Verified.")
    inner = "document.title + document.documentElement.innerText"
    titles = "[...document.querySelectorAll('[title], [aria-label]')].map(e => e.title + e.ariaLabel).join()"
    assert not set(TURNING) & set(page.evaluate(f"{inner} + {titles}"))
    page.goto("/")
    page.locator("#f-user").click()
    page.get_by_role("option", name=shown(text)).click()
    expect(page.locator(".chip-value")).to_have_text(shown(text))
    assert rows(page) == [event_id]
    page.locator("#f-q").fill("a")
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_have_count(2)
    assert filters_of(page.url) == [("user", text), ("q", "a")]


def test_what_is_written_from_right_to_left_stays_so_and_in_its_place(
    open_page: OpenPage, tenant: Tenant
) -> None:
    name, action = "\u05d3\u05e0\u05d4", "\u0634\u0637\u0628"
    (event_id,) = tenant.record(
        *events(
            1,
            user=name,
            action=action,
            resourceName=name,
            description=name,
            details={name: {name: 1}, action: 2},
        )
    )
    page = signed_in(open_page, tenant).page
    page.goto(f"/events/{event_id}")
    row = page.locator(f"#e-{event_id}")
    assert row.locator(".c-user").text_content() == row.locator(".c-description").text_content() == name
    left = "(element) => { const range = document.createRange(); range.selectNodeContents(element); "
    left += "return range.getBoundingClientRect().left; }"
    for before, after in (
        (".tree summary .node-name", ".tree summary .node-size"),
        (".tree ul ul .node-name", ".tree ul ul .node-value"),
        (".tree > ul > li:last-child > .node-name", ".tree > ul > li:last-child > .node-value"),
    ):
        places = [page.locator(each).first.evaluate(left) for each in (before, after)]
        assert places == sorted(places), before
    expect(page.locator(".legend")).to_contain_text(action)


def test_times_and_colours_switch_and_stay(open_page: OpenPage, tenant: Tenant) -> None:
    (event_id,) = tenant.record(*events(1, timestamp="2026-03-18T23:30:00.000001Z"))
    page = signed_in(open_page, tenant, timezone="Asia/Kolkata").page
    page.goto("/")
    time = page.locator(f"#e-{event_id} time")
    expect(time).to_have_text("2026-03-18 23:30:00")
    page.locator("#zone-switch").click()
    expect(time).to_have_text("2026-03-19 05:00:00")
    expect(page.locator("th .zone")).not_to_have_text("UTC")
    assert time.get_attribute("title") == "2026-03-18 23:30:00.000001 UTC"
    page.locator("#theme-switch").click()
    page.locator("#theme-switch").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    expect(time).to_have_text("2026-03-19 05:00:00")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("#theme-switch").click()
    assert page.evaluate("document.documentElement.dataset.theme") is None


def test_nothing_moves_while_the_page_loads_and_the_first_view_is_small(
    open_page: OpenPage, tenant: Tenant
) -> None:
    tenant.record(*events(500))
    watched = signed_in(open_page, tenant)
    page = watched.page
    sizes: list[int] = []
    page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
    page.add_init_script(
        "new PerformanceObserver(list => { for (const shift of list.getEntries()) "
        "window.shifted = (window.shifted ?? 0) + shift.value }"
        ").observe({ type: 'layout-shift', buffered: true })"
    )
    page.goto("/")
    expect(page.locator(".chart canvas")).to_be_visible()
    page.wait_for_timeout(300)
    assert page.evaluate("window.shifted ?? 0") < 0.01
    assert 20_000 < sum(sizes) < 100_000


def test_a_slow_server_shows_the_events_before_the_chart(open_page: OpenPage, tenant: Tenant) -> None:
    tenant.record(*events(50))
    watched = signed_in(open_page, tenant)
    page = watched.page

    def answer(route: Route) -> None:
        page.wait_for_timeout(1_000)
        route.continue_()

    page.route("**/overview*", answer)
    page.goto("/")
    expect(page.locator("#rows tr[id]").first).to_be_visible()
    assert page.locator("#overview .loading").is_visible()
    expect(page.locator(".chart canvas")).to_be_visible()


def test_a_reader_sees_nothing_of_another_account(
    open_page: OpenPage, tenant: Tenant, neighbour: Tenant
) -> None:
    (other,) = neighbour.record(*events(1, user="secret-user", details={"secret-detail": 1}))
    tenant.record(*events(3))
    watched: Watched = open_page(tenant.server.url)
    sign_in(watched, tenant.key("admin")[1])
    page = watched.page
    for path in ("/", "/rows", "/overview", "/suggestions?member=user&text=secret", f"/events/{other}"):
        answer = page.request.get(path)
        assert answer.status == (404 if other in path else 200)
        assert "secret" not in answer.text().replace("text=secret", "")


def test_answers_are_compressed_but_for_those_that_another_site_asks_for(
    open_page: OpenPage, tenant: Tenant
) -> None:
    tenant.record(*events(50))
    request = signed_in(open_page, tenant).page.request
    for site, encoded in (("same-origin", True), ("none", True), ("cross-site", False), ("same-site", False)):
        answer = request.get("/?q=otlp", headers={"Sec-Fetch-Site": site, "Accept-Encoding": "gzip"})
        assert ("content-encoding" in answer.headers) is encoded, site
        assert "otlp-" in answer.text()
