"""The client against a real server, and against servers that break off, refuse and lie."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditplane.client import Client, ConnectionLost, Filter, Refused
from auditplane.errors import InvalidConfig
from cutting import Scripted, answer, cutting_proxy
from keepers import record_unchecked
from server import start
from strategies import number_texts
from tenants import Tenant, event, events, events_of, ids

SECRET = "ap_0123456789secret"
BUSY = answer("503 Service Unavailable", b'{"errors":["Busy."]}', "Retry-After: 0")


@pytest.fixture
def client(tenant: Tenant) -> Iterator[Client]:
    """A client that may do everything."""
    with Client(tenant.server.url, tenant.key("admin")[1]) as made:
        yield made


def test_what_is_recorded_is_read_again(tenant: Tenant, client: Client) -> None:
    """Ids, single events, counts, lists in each order, and files agree with the API itself."""
    recorded = client.record(events(5, user="Ann"))
    recorded += client.record_lines(b"\n".join(json.dumps(event(user="ann")).encode() for _ in range(4)))
    where = Filter(users=("ANN",), kinds=("Source",))
    assert client.get(recorded[3])["id"] == recorded[3]
    assert client.count(where) == 9
    assert [found["id"] for found in client.events(where)] == recorded[::-1]
    for order in ("asc", "recorded"):
        assert [found["id"] for found in client.events(where, order=order)] == recorded
        assert [found["id"] for found in client.events(where, order=order, limit=4)] == recorded[:4]
    assert b"".join(client.download("ndjson", where)).splitlines() == list(client.lines(where))
    listed = tenant.reader.get("/v1/audit-events/download").content
    assert b"".join(client.download()) == listed
    assert b"".join(client.download("raw")).count(b"\r\n") == client.count() + 1
    assert list(client.events(Filter(users=("nobody",)))) == []
    assert list(client.lines(where, limit=0)) == []


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(number_texts, max_size=9))
def test_numbers_come_back_as_python_reads_them_and_their_lines_as_they_were(
    client: Client, numbers: list[str]
) -> None:
    taken = [number for number in numbers if len(number) <= 64 and abs(float(number)) < float("inf")]
    text = f'{{"n":[{",".join(taken)}]}}'
    (recorded,) = client.record_json(json.dumps(event()).encode()[:-1] + f',"details":{text}}}'.encode())
    assert client.get(recorded)["details"] == json.loads(text)
    assert next(client.events(limit=1))["details"] == json.loads(text)
    assert next(client.lines(limit=1)).endswith(f'"details":{text}}}'.encode())


def test_numbers_that_were_recorded_before_they_were_refused_are_read(tenant: Tenant, client: Client) -> None:
    """Beyond int and float as texts; they keep nobody from the events beside them."""
    (before,) = tenant.record(event())
    text = f'{{"n":[1e400,-1.5E999,{"9" * 5_000},{"9" * 400},-1.5,7,{{"m":1e5}}]}}'
    odd = record_unchecked(tenant.server.data, tenant.account, text.encode())
    (after,) = tenant.record(event())
    expected = {"n": ["1e400", "-1.5E999", "9" * 5_000, int("9" * 400), -1.5, 7, {"m": 1e5}]}
    assert client.get(odd)["details"] == expected
    found = {one["id"]: one.get("details") for one in client.events()}
    assert found[odd] == expected
    assert {before, after} < found.keys()
    assert text.encode() in b"".join(client.lines())


def test_each_member_of_a_filter_is_asked_for(tenant: Tenant, client: Client) -> None:
    """Every choice restricts the answer as the API's own parameter does."""
    wanted = event(
        user="u", action="Paused", resourceKind="Fleet", resourceName="n", configuration="c:1",
        timestamp="2026-03-18T12:00:00Z", description="some words",
    )  # fmt: skip
    tenant.record(wanted, *events(3, timestamp="2026-03-17T12:00:00Z"))
    for where in (
        Filter(users=("u",)), Filter(actions=("Paused", "Resumed")), Filter(kinds=("Fleet",)),
        Filter(names=("n",)), Filter(configurations=("c",)), Filter(words=("WORDS some",)),
        Filter(min_date="20260318", max_date="20260318"),
    ):  # fmt: skip
        assert [found["user"] for found in client.events(where)] == ["u"]
        assert client.count(where) == 1


def test_a_limit_beyond_a_page_follows_the_pages(tenant: Tenant, client: Client) -> None:
    """More than the server gives at once comes in several pages, each event once."""
    made = tenant.record(*events(10_000)) + tenant.record(*events(300))
    found = [one["id"] for one in client.events(Filter(kinds=("Source",)), order="asc", limit=10_200)]
    assert found == made[:10_200]


def test_the_log_is_walked_page_by_page(tenant: Tenant, client: Client) -> None:
    """`recorded_after` gives each matching event once, and ends at the end of the log."""
    made = []
    for _ in range(5):
        made += tenant.record(*events(3, user="carol"))
        tenant.record(*events(4))
    after, seen = -1, []
    while True:
        page = client.recorded_after(after, Filter(users=("carol",)), limit=2)
        seen += [json.loads(doc)["id"] for doc in page.docs]
        after = page.next_after
        if page.is_last:
            break
    assert seen == made
    assert after == page.log_size - 1


def test_a_refusal_carries_status_and_messages(tenant: Tenant, client: Client) -> None:
    """What the server says is what the exception says."""
    with pytest.raises(Refused) as caught:
        client.record([event(), {"user": "x"}])
    assert caught.value.status == 400
    assert any("events[1]" in message for message in caught.value.messages)
    assert not caught.value.may_pass
    for status, key in ((401, SECRET), (403, tenant.key("writer")[1])):
        with Client(tenant.server.url, key) as other, pytest.raises(Refused) as caught:
            other.count()
        assert caught.value.status == status
        assert SECRET not in str(caught.value)
    with pytest.raises(Refused) as caught:
        client.get("01JQ0000000000000000000000")
    assert caught.value.status == 404


@pytest.mark.parametrize(
    "read",
    [
        lambda client: list(client.lines()),
        lambda client: list(client.events(limit=1_500)),
        lambda client: b"".join(client.download()),
        lambda client: b"".join(client.download("ndjson")),
        lambda client: client.recorded_after(-1),
        lambda client: client.count(),
    ],
)
def test_an_answer_that_is_cut_anywhere_is_no_answer(tenant: Tenant, read: Callable[[Client], Any]) -> None:
    """After its first byte, in the middle, or before its very last one: never a short answer."""
    tenant.record(*events(2_000, description="x" * 200))
    secret = tenant.key("reader")[1]
    with cutting_proxy(tenant.server.port) as proxy:
        with Client(proxy.url, secret) as client:
            whole = read(client)
        with Client(proxy.url, secret) as client:
            assert read(client) == whole
        size = _answer_bytes(tenant, secret, read)
        for cut in (1, 100, size // 2, size - 6, size - 1):
            proxy.cuts = [cut]
            with Client(proxy.url, secret) as client, pytest.raises(ConnectionLost):
                read(client)


def _answer_bytes(tenant: Tenant, secret: str, read: Callable[[Client], Any]) -> int:
    """The least cut that does no harm, found by halving."""
    low, high = 1, 1 << 21
    while high - low > 1:
        middle = (low + high) // 2
        with cutting_proxy(tenant.server.port) as proxy, Client(proxy.url, secret) as client:
            proxy.cuts = [middle]
            try:
                read(client)
                high = middle
            except ConnectionLost:
                low = middle
    return high


def test_a_server_that_is_not_there_is_told() -> None:
    """With its address, and what to look at."""
    with Client("http://127.0.0.1:9", SECRET) as client, pytest.raises(ConnectionLost) as caught:
        client.count()
    assert "No server answers at http://127.0.0.1:9" in str(caught.value)


def test_what_may_be_repeated_is_repeated_when_the_server_asks_for_it() -> None:
    """Reads, and events that all have an id; one without an id is sent once."""
    with_ids = [event(id="01JQ0000000000000000000000")]
    asks: list[tuple[Callable[[Client], Any], bytes]] = [
        (lambda client: client.count(), b'{"count":3}'),
        (lambda client: client.record(with_ids), b'{"ids":["01JQ0000000000000000000000"]}'),
    ]
    for ask, told in asks:
        server = Scripted([BUSY, BUSY, answer("200 OK", told)])
        with Client(server.url, SECRET) as client:
            assert ask(client)
        assert len(server.asked) == 3
    server = Scripted([BUSY, answer("201 Created", b'{"ids":["x"]}')])
    with Client(server.url, SECRET) as client, pytest.raises(Refused) as caught:
        client.record([*with_ids, event()])
    assert caught.value.may_pass
    assert caught.value.messages == ("Busy.",)
    assert len(server.asked) == 1


def test_a_server_that_stays_busy_is_left_alone() -> None:
    """A few tries, then the refusal."""
    server = Scripted([BUSY] * 20)
    with Client(server.url, SECRET) as client, pytest.raises(Refused, match="Busy"):
        client.count()
    assert len(server.asked) == 5


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (answer("200 OK", b"<html>", media="text/html"), Refused),
        (answer("302 Found", b"", "Location: http://127.0.0.1:9/"), Refused),
        (answer("502 Bad Gateway", b"<html>\x1b[31m", media="text/html"), Refused),
        (answer("400 Bad Request", b'{"errors":["a\\u001b[31m\\nb"]}'), Refused),
        (answer("200 OK", b'{"count":"x"}'), ConnectionLost),
        (answer("200 OK", b'{"counts":1}'), ConnectionLost),
        (answer("200 OK", b'{"count\xff":1}'), ConnectionLost),
        (answer("200 OK", b'{"count":' + b"[" * 9_000), ConnectionLost),
        (answer("200 OK", b"[" * (16 * 1024 * 1024 + 1)), ConnectionLost),
        (answer("400 Bad Request", b'{"errors":["\xff"]}'), Refused),
        (answer("400 Bad Request", b'{"errors":' + b"[" * 9_000), Refused),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b'{"count":3}', ConnectionLost),
        (answer("200 OK", b"\x28\xb5\x2f\xfdbroken", "Content-Encoding: zstd"), ConnectionLost),
        (b"nonsense\r\n\r\n", ConnectionLost),
        (b"", ConnectionLost),
    ],
)
def test_other_answers_are_errors_of_one_line(told: bytes, expected: type[Exception]) -> None:
    """What no Auditplane says is never taken for an answer, and reaches no terminal as it is."""
    server = Scripted([told])
    with Client(server.url, SECRET) as client, pytest.raises(expected) as caught:
        client.count()
    assert str(caught.value).isprintable()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("line", [b"nonsense", b"[1e400]", b'{"a":1e400', b'{"a":1e400,"b":"\xff"}', b"[]"])
def test_a_line_that_is_no_event_is_an_error(line: bytes) -> None:
    """Whatever it claims to be."""
    server = Scripted([answer("200 OK", b"{}\n%b\n" % line, media="application/x-ndjson")])
    with Client(server.url, SECRET) as client:
        found = client.events()
        assert next(found) == {}
        with pytest.raises(ConnectionLost, match="not what is due"):
            next(found)


def test_a_line_that_never_ends_is_an_error() -> None:
    """Before it fills the memory, and before it is looked through again and again."""
    server = Scripted([answer("200 OK", b"{" * (4 * 1024 * 1024), media="application/x-ndjson")])
    with Client(server.url, SECRET) as client, pytest.raises(ConnectionLost, match="far too long"):
        next(client.lines())


@pytest.mark.parametrize(
    "link",
    ["/v1/audit-events?cursor=abc", "/v1/audit-events", "/v1/audit-events?cursor=", "http://[", "//xn--a"],
)
def test_a_link_to_no_next_page_is_an_error(link: str) -> None:
    """Also one that leads to the same page again, for ever."""
    page = answer("200 OK", b"", f'Link: <{link}>; rel="next"', media="application/x-ndjson")
    server = Scripted([page] * 9)
    with Client(server.url, SECRET) as client, pytest.raises(ConnectionLost, match="no next page"):
        list(client.lines(limit=5))
    assert len(server.asked) <= 2


def test_a_feed_of_a_server_without_the_header_is_refused() -> None:
    """An older server does not say where a feed with filters goes on."""
    server = Scripted([answer("200 OK", b"", media="application/x-ndjson")])
    with Client(server.url, SECRET) as client, pytest.raises(Refused, match="newer version"):
        client.recorded_after(-1)


@pytest.mark.parametrize("key", ["a b", "ap_x\r\nX: y", "ap_é", "ap_x\n"])
def test_a_key_that_is_none_is_not_shown(key: str) -> None:
    """No complaint of a library may hold it."""
    with pytest.raises(InvalidConfig) as caught:
        Client("http://127.0.0.1:1", key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:3001",
        "ftp://x",
        "http://",
        "http://a b",
        "http://x/?a=1",
        "http://[x",
        "http://\udcff",
        "http://127yxn--:3001",
        "http://127.0yxn--a1_0.",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig, match="address"):
        Client(url, SECRET)


def test_tls_trusts_the_named_authority_only(tmp_path: Path) -> None:
    """Without it the certificate is refused, and the message says what to do."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
         "2", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    with start(tmp_path / "data", "--tls-cert", cert, "--tls-key", key) as server:
        with Client(server.url, server.admin_key, ca_cert=cert) as client:
            assert client.count() == 1
        with Client(server.url, server.admin_key) as client, pytest.raises(ConnectionLost) as caught:
            client.count()
        assert "--ca-cert" in str(caught.value)
    for wrong in (key, tmp_path / "missing.pem"):
        with pytest.raises(InvalidConfig, match=wrong.name):
            Client("https://127.0.0.1:1", SECRET, ca_cert=wrong)


def test_nothing_is_asked_for_that_was_not_wanted(tenant: Tenant, client: Client) -> None:
    """An iterator that is dropped early leaves the client usable."""
    tenant.record(*events(500))
    for _ in range(3):
        assert next(client.lines()).startswith(b"{")
    listed = events_of(tenant.reader.get("/v1/audit-events"))
    assert client.count() == len(ids(listed))
