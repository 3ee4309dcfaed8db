"""Exporting a view: the exact number first, then the very bytes of the API; and the trail tells of it."""

import re
from pathlib import Path

from playwright.sync_api import expect

from browser import OpenPage, check_accessibility
from people import sign_in, signed_in
from server import start
from tenants import Tenant, client, events


def test_a_person_exports_what_the_view_shows(open_page: OpenPage, tenant: Tenant) -> None:
    tenant.record(*events(120, user="ann"), *events(30, user="bob"))
    page = signed_in(open_page, tenant).page
    page.goto("/?user=ann")
    page.keyboard.press("e")
    dialog = page.get_by_role("dialog", name="Export")
    expect(dialog).to_contain_text("Export 120 events")
    check_accessibility(page)
    for name, path, accept in (
        ("CSV", "/v1/audit-events/download", ""),
        ("NDJSON", "/v1/audit-events", "application/x-ndjson"),
    ):
        with page.expect_download() as download:
            dialog.get_by_role("link", name=name, exact=True).click()
        got = Path(download.value.path()).read_bytes()
        assert got == tenant.reader.get(path, params={"user": "ann"}, headers={"Accept": accept}).content
        assert download.value.suggested_filename == f"audit-events-{tenant.account}.{name.lower()}"
    with page.expect_download() as download:
        dialog.get_by_role("link", name="Evidence").click()
    assert Path(download.value.path()).read_bytes().startswith(b"PK")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_without_javascript_it_is_a_page_and_nothing_is_said_so(open_page: OpenPage, tenant: Tenant) -> None:
    tenant.record(*events(5, user="ann"))
    page = signed_in(open_page, tenant, java_script=False).page
    page.goto("/?user=ann&order=asc")
    page.get_by_role("link", name="Export").click()
    expect(page.locator("#export-title")).to_have_text("Export 5 events")
    with page.expect_download() as download:
        page.get_by_role("link", name="NDJSON", exact=True).click()
    ascending = tenant.reader.get(
        "/v1/audit-events", params={"user": "ann", "order": "asc"}, headers={"Accept": "application/x-ndjson"}
    )
    assert Path(download.value.path()).read_bytes() == ascending.content
    page.goto("/export?user=nobody")
    expect(page.get_by_text("There is nothing to export")).to_be_visible()
    assert page.locator(".exports").count() == 0


def test_the_trail_tells_of_an_export_and_other_sites_cannot_start_one(
    open_page: OpenPage, tmp_path: Path
) -> None:
    told = {"AUDITPLANE_AUDIT_TRAIL_RECORD_READS": "true"}
    with start(tmp_path / "data", env=told) as server, client(server.url, server.admin_key) as admin:
        watched = open_page(server.url)
        sign_in(watched, server.admin_key)
        request = watched.page.request
        for form in ("csv", "ndjson", "evidence"):
            refused = request.get(f"/export/{form}?user=ann", headers={"Sec-Fetch-Site": "cross-site"})
            assert refused.status == 403
        assert admin.get("/v1/audit-events/count", params={"action": "Exported"}).json() == {"count": 0}
        for form in ("csv", "ndjson", "evidence"):
            assert request.get(f"/export/{form}?user=ann&chart=kind").status == 200
        assert request.get("/export/xml").status == 404
        found = admin.get("/v1/audit-events", params={"action": "Exported"}).json()
        assert [event["details"]["form"] for event in found] == ["evidence", "ndjson", "csv"]
        assert all(event["details"]["filters"] == {"user": ["ann"]} for event in found)


def test_nobody_exports_without_a_session_and_no_header_is_injected(
    open_page: OpenPage, tenant: Tenant
) -> None:
    anybody = tenant.client(None)
    for form in ("csv", "ndjson", "evidence"):
        refused = anybody.get(f"/export/{form}", headers={"Accept": "*/*"})
        assert refused.status_code in (303, 401)
    request = signed_in(open_page, tenant).page.request
    answer = request.get("/export/csv?user=a%0d%0aX-Evil:%201&min-date=20260101")
    assert answer.status == 200
    assert "x-evil" not in answer.headers
    assert re.fullmatch(
        rf'attachment; filename="audit-events-{tenant.account}-from-20260101\.csv"',
        answer.headers["content-disposition"],
    )


def test_a_view_that_shows_nothing_says_which_filter_to_take_away(
    open_page: OpenPage, tenant: Tenant
) -> None:
    tenant.record(*events(7, user="ann"), *events(3, user="bob"))
    page = signed_in(open_page, tenant).page
    page.goto("/?user=ann&action=Exploded&resource-kind=Source")
    links = page.locator(".relax li")
    expect(links.first).to_have_text("Without Action Exploded: 7 events")
    check_accessibility(page)
    links.first.locator("a").click()
    expect(page.locator("#rows tr[id]")).to_have_count(7)
