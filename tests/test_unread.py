"""Large answers that nobody takes: all that were made whole are bounded for each account, and end in time."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Final

import pytest

from auditplane import limits
from auditplane.access import Access
from routes import cookie
from server import Server
from tenants import KEYS, Tenant, event, new_tenant, problems_of, taken_to_the_end

LONG: Final = "\U0001f600" * limits.NAME_CHARS_MAX
HOLDS: Final = "/v1/holds"
BUSY: Final = "Too large pages are under way; ask again when some were taken, or for less."


@pytest.fixture(scope="module")
def large(server: Server, access: Access) -> Iterator[Tenant]:
    """An account whose keys, holds and newest events are each more than the buffers of a connection hold."""
    for tenant in new_tenant(server, access):
        for _ in range(600):
            tenant.key("reader", description=LONG)
        for _ in range(400):
            assert tenant.admin.post(HOLDS, json={"reason": LONG, "user": LONG}).status_code == 201
        text = '"' * 256
        members = {"user": text, "action": text[:64], "resourceName": text, "configuration": text}
        tenant.record(*(event(**members, description='"' * 4_096) for _ in range(100)))
        yield tenant


@pytest.fixture(scope="module")
def headers(large: Tenant, access: Access) -> dict[str, str]:
    """Those of an admin, for the API and for the page."""
    secret = large.key("admin")[1]
    return {"X-Bindplane-Api-Key": secret, **cookie(access.open_session(secret)[0])}


def most(size: int) -> int:
    """How many answers of a size one account alone may have: each finds as much free as is held with it."""
    return (limits.PAGES_BYTES_MAX // size + 1) // 2


def unread(tenant: Tenant, path: str, headers: dict[str, str]) -> socket.socket:
    """A connection whose answer is not taken."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(30)
    made.connect(("127.0.0.1", tenant.server.port))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    made.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
    return made


@pytest.mark.parametrize("path", ["/", "/keys", "/keeping", KEYS, HOLDS])
def test_no_answer_that_is_not_taken_is_kept_beyond_the_share(
    large: Tenant, headers: dict[str, str], path: str
) -> None:
    """And when the others are gone there is room again."""
    asker = large.client(None, **headers)
    answer = asker.get(path)
    size = len(answer.content)
    assert answer.status_code == 200
    assert int(answer.headers["Content-Length"]) == size > 512 * 1024
    with ExitStack() as stack:
        waiting = [stack.enter_context(closing(unread(large, path, headers))) for _ in range(most(size) + 5)]
        statuses = [each.recv(64).split(b" ")[1] for each in waiting]
        assert statuses.count(b"200") == most(size)
        assert statuses.count(b"503") == 5
        assert problems_of(asker.get(path, headers={"Accept": "application/json"}), 503) == [BUSY]
        assert asker.head("/v1/retention").status_code == 200  # what is small is answered
    deadline = time.monotonic() + 30
    while (again := asker.get(path)).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (again.status_code, len(again.content)) == (200, size)


def test_a_new_key_is_shown_where_the_list_of_all_has_no_room(large: Tenant, headers: dict[str, str]) -> None:
    """Nobody would ever see its secret."""
    asker = large.client(None, **headers)
    page = asker.get("/keys")
    (csrf,) = set(re.findall(r'name="csrf" value="([^"]+)"', page.text))
    with ExitStack() as stack:
        for _ in range(most(len(page.content))):
            waiting = stack.enter_context(closing(unread(large, "/keys", headers)))
            assert waiting.recv(64).split(b" ")[1] == b"200"
        form = {"csrf": csrf, "role": "reader", "description": "made", "ends": ""}
        made = asker.post("/keys", data=form)
    assert made.status_code == 200
    (secret,) = re.findall(r'id="secret">(ap_\w+)<', made.text)
    assert large.client(secret).get("/v1/audit-events/count").status_code == 200


def test_a_row_has_the_beginning_of_a_long_description(tenant: Tenant, access: Access) -> None:
    """Thrice as long a page would say no more; the event's own page says it all."""
    text = "x" * limits.DESCRIPTION_CHARS_MAX
    (event_id,) = tenant.record(event(description=text))
    person = tenant.client(None, **cookie(access.open_session(tenant.key("reader")[1])[0]))
    beginning = "x" * 511 + "…"
    rows = person.get("/").text
    assert rows.count(beginning) == 2
    assert rows.count("x" * 512) == 0
    assert text in person.get(f"/events/{event_id}", headers={"HX-Request": "true"}).text


def test_a_page_that_is_read_slowly_breaks_off_when_its_session_ends(large: Tenant, access: Access) -> None:
    token, _ = access.open_session(large.key("admin")[1])
    size = len(large.client(None, **cookie(token)).get("/").content)
    with closing(unread(large, "/", cookie(token))) as reader:
        assert b" 200 " in reader.recv(1_000)
        access.close_session(token)
        taken, was_reset = taken_to_the_end(reader)
    assert was_reset
    assert taken < size
