"""The pages for admins: keys, retention and holds, storage; for nobody else, and by their own forms only."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from auditplane.times import DAY_US, format_us
from browser import DESKTOP, PHONE, ColorScheme, OpenPage, check_accessibility
from people import sign_in, signed_in
from server import run, start
from tenants import Tenant, client, clock, events, events_of

PAGES = ("/keys", "/keeping", "/storage")
HOSTILE = '"><img src=x onerror="console.error(1)">{{7*7}}' + "a" * 120


def changes(key_id: str) -> Sequence[tuple[str, dict[str, str | float | bool]]]:
    """Every change that the pages can ask for."""
    return (
        ("/keys", {"role": "admin", "description": "x", "ends": ""}),
        (f"/keys/{key_id}/revoke", {}),
        ("/keeping/retention", {"days": "1", "confirmed": "yes"}),
        ("/keeping/holds", {"reason": "x"}),
        ("/keeping/holds/01ARZ3NDEKTSV4RRFFQ69G5FAV/lift", {}),
    )


def csrf_of(page: Page) -> str:
    token = page.locator('meta[name="csrf-token"]').get_attribute("content")
    assert token
    return token


def test_only_admins_see_the_pages_and_only_their_own_forms_change_anything(
    open_page: OpenPage, tenant: Tenant
) -> None:
    key_id, _ = tenant.key("writer")
    before = len(events_of(tenant.admin.get("/v1/audit-events")))
    reader = signed_in(open_page, tenant)
    reader.page.goto("/")
    assert reader.page.get_by_role("link", name="Keys").count() == 0
    admin = signed_in(open_page, tenant, role="admin")
    admin.page.goto("/keys")
    before += 2  # their two keys
    for path in PAGES:
        assert reader.page.request.get(path).status == 403
        assert tenant.client(None).get(path, headers={"Accept": "text/html"}).status_code == 303
    for path, form in changes(key_id):
        refusals = [
            reader.page.request.post(path, form={**form, "csrf": csrf_of(reader.page)}),
            admin.page.request.post(path, form=form),
            admin.page.request.post(path, form={**form, "csrf": csrf_of(reader.page)}),
            admin.page.request.post(
                path, form={**form, "csrf": csrf_of(admin.page)}, headers={"Origin": "https://evil.example"}
            ),
            admin.page.request.post(
                path, form={**form, "csrf": csrf_of(admin.page)}, headers={"Sec-Fetch-Site": "cross-site"}
            ),
        ]
        assert [answer.status for answer in refusals] == [403] * 5, path
        assert tenant.client(None).post(path, data=form).status_code == 401
    assert len(events_of(tenant.admin.get("/v1/audit-events"))) == before


def test_a_key_is_made_shown_once_used_and_revoked(open_page: OpenPage, tenant: Tenant) -> None:
    page = signed_in(open_page, tenant, role="admin").page
    page.goto("/keys")
    page.get_by_label("Description").fill("Grafana")
    page.get_by_label("Role").select_option("writer")
    page.get_by_label("Ends").select_option("30")
    page.get_by_role("button", name="Make the key").click()
    secret = page.locator("#secret").inner_text()
    command = f'curl -H "X-Bindplane-Api-Key: {secret}" -H "Content-Type: application/json"'
    for part in (command, f"{tenant.server.url}/v1/audit-events"):
        expect(page.locator(".made pre")).to_contain_text(part)
        assert part in (page.locator(".made figcaption button").get_attribute("data-copy") or "")
    check_accessibility(page)
    assert tenant.client(secret).post("/v1/audit-events", json=events(1)).status_code == 201
    made = next(
        key for key in tenant.admin.get("/v1/api-keys").json()["apiKeys"] if key["description"] == "Grafana"
    )
    assert made["role"] == "writer"
    assert made["expires"][:10] == format_us(clock() + 30 * DAY_US)[:10]
    page.goto("/keys")
    assert secret not in page.content()
    page.get_by_role("link", name="Revoke Grafana").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Revoke the key Grafana?")
    check_accessibility(page)
    page.get_by_role("link", name="Leave it as it is").click()
    page.get_by_role("link", name="Revoke Grafana").click()
    page.get_by_role("button", name="Revoke the key").click()
    expect(page.get_by_role("status").first).to_contain_text("Grafana is revoked")
    assert tenant.client(secret).post("/v1/audit-events", json=events(1)).status_code == 401
    told = events_of(tenant.admin.get("/v1/audit-events", params={"resource-name": made["id"]}))
    assert [event["action"] for event in told] == ["Deleted", "Created"]
    assert {event["user"] for event in told} == {"test"}


def test_who_revokes_the_own_or_the_last_admins_key_is_warned(open_page: OpenPage, tenant: Tenant) -> None:
    key_id, secret = tenant.key("admin")
    watched = open_page(tenant.server.url)
    watched.allow("status of 401")
    sign_in(watched, secret)
    page = watched.page
    page.goto(f"/keys/{key_id}/revoke")
    expect(page.locator(".notice")).to_have_count(2)
    page.get_by_role("button", name="Revoke the key").click()
    expect(page).to_have_url(re.compile("/sign-in"))


def test_what_would_expire_is_said_before_it_does(open_page: OpenPage, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with start(folder) as server, client(server.url, server.admin_key) as admin:
        admin.post("/v1/audit-events", json=events(5)).raise_for_status()
        watched = open_page(server.url)
        sign_in(watched, server.admin_key)
        page = watched.page
        page.goto("/keeping")
        expect(page.get_by_role("heading", level=2).first).to_have_text("Events are kept for ever")
        page.get_by_label("Days").fill("many")
        watched.expect("status of 400")
        page.get_by_role("button", name="Set the retention").click()
        expect(page.get_by_role("alert")).to_contain_text("Days must be a whole number")
        expect(page.get_by_label("Days")).to_have_value("many")
        page.get_by_label("Days").fill("400")
        page.get_by_role("button", name="Set the retention").click()
        expect(page.get_by_text("Nothing expires at once")).to_be_visible()
        assert admin.get("/v1/retention").json()["days"] is None
        page.get_by_role("button", name="Set the retention").click()
        expect(page.get_by_role("status").first).to_have_text("The retention is set.")
        assert admin.get("/v1/retention").json() == {"days": 400, "inForce": 400}
        page.goto("/storage")
        expect(page.locator(".figures")).to_contain_text("for 400 days")
        expect(page.locator(".figures dd").first).to_have_text("7")
        expect(page.locator("footer")).to_contain_text("Never fully verified")
        done = run("verify", "--data", folder, "--record")
        assert done.returncode == 0, done.stderr
        page.reload()
        expect(page.locator("footer")).to_contain_text("Last full verification")
        expect(page.locator("footer")).to_contain_text(", 7 entries")
        check_accessibility(page)
        (folder / "accounts" / "default.verified").write_text(
            '{"at_us": 1, "size": 7, "deep": false, "problems": 2}'
        )
        page.reload()
        expect(page.locator(".foot-problem")).to_contain_text("found 2 problems")


def test_events_that_expire_are_counted(open_page: OpenPage, tenant: Tenant) -> None:
    """Those of before the days that are asked for; here all are of today, so none is."""
    tenant.record(*events(9, timestamp="2026-01-01T00:00:00Z"))  # age counts from when it was recorded
    page = signed_in(open_page, tenant, role="admin").page
    page.goto("/keeping")
    page.get_by_label("Days").fill("1")
    page.get_by_role("button", name="Set the retention").click()
    expect(page.get_by_text("Nothing expires at once")).to_be_visible()


def test_a_hold_is_placed_and_lifted(open_page: OpenPage, tenant: Tenant) -> None:
    tenant.record(*events(2, user="Ann"))
    watched = signed_in(open_page, tenant, role="admin")
    page = watched.page
    page.goto("/keeping")
    page.get_by_label("Reason").fill("Case 4711")
    page.locator("#h-user").fill("an")
    page.get_by_role("option", name="Ann").click()
    page.locator("#h-from").fill("yesterday")
    watched.expect("status of 400")
    page.get_by_role("button", name="Place the hold").click()
    expect(page.get_by_role("alert")).to_contain_text("From")
    expect(page.locator("#h-user")).to_have_value("Ann")
    check_accessibility(page)
    page.locator("#h-from").fill("20260301")
    page.get_by_role("button", name="Place the hold").click()
    expect(page.get_by_role("status").first).to_have_text("The hold is in force.")
    (hold,) = tenant.admin.get("/v1/holds").json()["holds"]
    assert (hold["reason"], hold["user"], hold["minDate"][:10]) == ("Case 4711", "Ann", "2026-03-01")
    page.get_by_role("link", name="Lift the hold Case 4711").click()
    check_accessibility(page)
    page.get_by_role("button", name="Lift the hold").click()
    expect(page.get_by_role("status").first).to_have_text("The hold is lifted.")
    assert tenant.admin.get("/v1/holds").json() == {"holds": []}


def test_hostile_texts_are_only_ever_text(open_page: OpenPage, tenant: Tenant) -> None:
    tenant.key("reader", description=HOSTILE)
    watched = signed_in(open_page, tenant, role="admin", java_script=False)
    page = watched.page
    page.goto("/keys")
    expect(page.locator(".sheet-main").filter(has_text="{{7*7}}")).to_have_count(1)
    page.get_by_label("Description").fill("bell \x07")
    watched.expect("status of 400")
    page.get_by_role("button", name="Make the key").click()
    expect(page.get_by_role("alert")).to_contain_text("printable")
    page.goto("/keeping")
    page.get_by_label("Reason").fill(HOSTILE)
    page.get_by_role("button", name="Place the hold").click()
    expect(page.locator(".sheet-main").first).to_have_text(HOSTILE)
    page.locator(".sheet-act a").click()
    assert page.locator("img, main script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True])
def test_the_pages_are_accessible(
    open_page: OpenPage, tenant: Tenant, scheme: ColorScheme, phone: bool
) -> None:
    tenant.record(*events(20))
    key_id, _ = tenant.key("writer")
    tenant.revoke(key_id)
    screen = PHONE if phone else DESKTOP
    page = signed_in(open_page, tenant, role="admin", color_scheme=scheme, screen=screen).page
    for path in PAGES:
        page.goto(path)
        for hidden in page.locator("details.panel > summary").all():
            hidden.click()
        check_accessibility(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_storage_says_what_the_api_says(open_page: OpenPage, tenant: Tenant) -> None:
    now = time.time_ns() // 1000
    yesterday = now // DAY_US * DAY_US - 1
    tenant.record(*events(12, timestamp=format_us(yesterday)), *events(3))
    page = signed_in(open_page, tenant, role="admin").page
    page.goto("/storage")
    count = tenant.admin.get("/v1/audit-events/count").json()["count"]
    shown = int(page.locator(".figures dd").first.inner_text())
    assert count - 2 <= shown <= count  # the keys of those who ask
    assert page.locator(".growth title").nth(29).text_content() == f"{format_us(yesterday)[:10]}: 12"
