"""Long answers over real HTTP: their encodings, the download as a file, slow readers and vanished ones."""

import contextlib
import csv
import gzip
import http.client
import io
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import httpx2
import msgspec
import pytest

from server import Server, start
from tenants import DOWNLOAD, EVENTS, Json, Tenant, event, ids, new_tenant, opened, recorded

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BIG_EVENTS = 100_100
MIB = 1024 * 1024
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zstd": zstd.decompress,
    "identity": bytes,
}


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """An account of more than 100,000 events on a server of its own, whose memory is looked at."""
    with start(tmp_path_factory.mktemp("big") / "data") as server:
        for access in opened(server.data):
            for tenant in new_tenant(server, access):
                _fill(tenant)
                yield tenant


def _fill(tenant: Tenant) -> None:
    """Some texts with formulas, quotes and line breaks; some events late."""
    chosen = random.Random(5)
    for batch in range(11):
        at = f"2026-03-{batch + 1:02}T00:00:00Z" if batch in (2, 7) else None
        body = [
            event(
                user=chosen.choice(["ann", "bob", "=1+1", 'the "admin"']),
                description=f"{chosen.randbytes(50).hex()}\r\n{number % 10}",
                timestamp=at,
            )
            for number in range(BIG_EVENTS // 11)
        ]
        recorded(tenant.writer.post(EVENTS, content=msgspec.json.encode(body)))


def raw_answer(reader: httpx2.Client, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    """An answer, and its body as it came over the wire; httpx2 takes long for large ones."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(reader.base_url.host, reader.base_url.port or 0, timeout=60)
    with contextlib.closing(connection):
        connection.putrequest("GET", path, skip_accept_encoding=True)
        for name, value in {"X-Bindplane-Api-Key": reader.headers["X-Bindplane-Api-Key"], **names}.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
    assert answer.status == 200
    return answer, body


JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"


@pytest.mark.parametrize(
    ("path", "accept", "codings"),
    [
        (f"{EVENTS}?", JSON, "gzip zstd"), (f"{EVENTS}?order=asc", NDJSON, "zstd"),
        (f"{EVENTS}?", CSV, "zstd"), (f"{DOWNLOAD}?raw=true", "*/*", "gzip zstd"),
        (f"{DOWNLOAD}?", "*/*", "zstd"),
        (f"{EVENTS}?order=recorded&after=90000", NDJSON, "zstd"),
    ],
)  # fmt: skip
def test_a_packed_answer_is_the_plain_one_packed(big: Tenant, path: str, accept: str, codings: str) -> None:
    """With zstd, stored frames are passed through; they unpack to the same bytes, long or short or empty."""
    plain = b""
    for query in ("", "&user=bob&max-date=20260302", "&user=nobody"):
        answer, plain = raw_answer(big.reader, path + query, Accept=accept)
        assert "Content-Encoding" not in answer.headers
        for coding in codings.split():
            answer, packed = raw_answer(big.reader, path + query, Accept=accept, Accept_Encoding=coding)
            assert answer.headers["Content-Encoding"] == coding
            assert sha256(UNPACK[coding](packed)).digest() == sha256(plain).digest()
            assert len(packed) < len(plain) or len(plain) < 100
    headers = {"Accept": accept, "Accept-Encoding": "zstd"}
    assert plain == big.reader.get(f"{path}&user=nobody", headers=headers).content


def test_a_page_is_packed_too(big: Tenant) -> None:
    _, plain = raw_answer(big.reader, f"{EVENTS}?limit=2000")
    for coding in ("gzip", "zstd"):
        answer, packed = raw_answer(big.reader, f"{EVENTS}?limit=2000", Accept_Encoding=coding)
        assert answer.headers["Content-Encoding"] == coding
        assert int(answer.headers["Content-Length"]) == len(packed) < len(plain)
        assert UNPACK[coding](packed) == plain


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"), ("zstd", "zstd"), ("gzip, deflate, br, zstd", "zstd"),
        ("ZSTD;q=0.5, gzip;q=0.8", "gzip"),
        ("br", None), ("", None), ("identity", None), ("zstd;q=0, gzip;q=0.0", None), ("*", None),
        ("gzip;q=0.2, identity;q=0.9", None), ("zstd;q=0.5, identity;q=0.5", "zstd"),
        ("zstd;q=0,gzip", "gzip"),
    ],
)  # fmt: skip
def test_the_encoding_is_one_that_was_named(tenant: Tenant, accepted: str, coding: str | None) -> None:
    for path in (EVENTS, DOWNLOAD, f"{EVENTS}?limit=1"):
        answer, body = raw_answer(tenant.reader, path, Accept_Encoding=accepted)
        assert answer.headers.get("Content-Encoding") == coding
        assert b"APIKey" in UNPACK[coding or "identity"](body)
        assert "Accept-Encoding" in answer.headers["Vary"]


@pytest.mark.parametrize("order", ["desc", "asc"])
def test_a_big_list_has_every_event_once(big: Tenant, order: str) -> None:
    answer, body = raw_answer(big.reader, f"{EVENTS}?order={order}", Accept_Encoding="zstd")
    docs: list[Json] = msgspec.json.decode(zstd.decompress(body))
    assert len(set(ids(docs))) == len(docs) == int(answer.headers["Auditplane-Log-Size"]) >= BIG_EVENTS
    times = [doc["timestamp"] for doc in docs]
    assert times == sorted(times, reverse=order == "desc")


# The download as a file.

AWKWARD = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "'quoted'", "'", "a=b", 'a,"b"', "a\r\nb", "ü😀",
    " =1", "x'",
]  # fmt: skip


def test_a_spreadsheet_runs_nothing_and_import_takes_the_guard_off(tenant: Tenant) -> None:
    """A cell that begins like a formula, or with the guard itself, has a `'` before it, but with raw=true."""
    given = [
        event(
            user=text,
            resourceName=text,
            description=text,
            configuration=text,
            action=text,
            details={"a": text},
        )
        for text in AWKWARD
    ]
    made = tenant.record(*given)
    members = ("user", "resourceName", "description", "configuration", "action")
    for raw in ("", "false", "true"):
        answer = tenant.reader.get(DOWNLOAD, params={"order": "asc", "resource-kind": "Source", "raw": raw})
        rows = list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))
        assert [row["id"] for row in rows] == made
        for row, one in zip(rows, given, strict=True):
            for member in members:
                text = one[member]
                guarded = text[0] in "=+-@\t\r\n'"
                assert row[member] == ("'" + text if guarded and raw != "true" else text)
            assert msgspec.json.decode(row["details"]) == one["details"]
            assert row["account"] == tenant.account


def test_a_download_is_rfc_4180(tenant: Tenant) -> None:
    """CRLF after each row, quotes where they are needed and only there, UTF-8 without a byte order mark."""
    (made,) = tenant.record(
        event(user='a,"b"', description="two\r\nlines ü", resourceName="n", timestamp="2026-01-01T00:00:00Z")
    )
    body = tenant.reader.get(DOWNLOAD, params={"resource-name": "n"}).content
    assert (
        body
        == (
            "id,timestamp,resourceName,description,resourceKind,configuration,action,user,account,details\r\n"
            f'{made},2026-01-01T00:00:00.000000Z,n,"two\r\nlines ü",Source,,Modified,"a,""b""",'
            f"{tenant.account},\r\n"
        ).encode()
    )


def test_a_download_is_a_file_with_a_telling_name(tenant: Tenant) -> None:
    for query, dates in (
        ({}, ""), ({"min-date": "20260101"}, "-from-20260101"),
        ({"max-date": "20260331235959"}, "-to-20260331"),
        ({"min-date": "20260101", "max-date": "20260331", "user": "x"}, "-from-20260101-to-20260331"),
        ({"min-date": "0001-01-01T00:00:00Z", "max-date": "99991231"}, "-from-00010101-to-99991231"),
    ):  # fmt: skip
        answer = tenant.reader.get(DOWNLOAD, params=query)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        name = f"audit-events-{tenant.account}{dates}.csv"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "application/octet-stream",
        "text/csv",
        "application/json",
        "text/plain, application/json;q=0.5",
    ],
)
def test_errors_of_the_download_are_octets_unless_json_is_accepted(
    tenant: Tenant, accept: str | None
) -> None:
    headers = {"Accept": accept} if accept else {}
    expected = "application/json" if "json" in (accept or "") else "application/octet-stream"
    reader, writer, nobody = tenant.reader, tenant.writer, tenant.client(None)
    for answer, status in (
        (reader.get(DOWNLOAD, params={"raw": "yes"}, headers=headers), 400),
        (reader.get(DOWNLOAD, params={"users": "x"}, headers=headers), 400),
        (reader.get(DOWNLOAD, params={"min-date": "x"}, headers=headers), 400),
        (nobody.get(DOWNLOAD, headers=headers), 401),
        (writer.get(DOWNLOAD, headers=headers), 403),
        (reader.post(DOWNLOAD, headers=headers), 405),
    ):
        assert msgspec.json.decode(answer.content)["errors"]
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, expected)
        assert "Content-Disposition" not in answer.headers
    assert reader.get(DOWNLOAD, headers=headers).headers["Content-Type"] == "application/octet-stream"


# Slow readers and vanished ones.


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    return [pid, *(inner for child in found for inner in family(int(child)))]


def resident_bytes(server: Server) -> int:
    """The memory of a server and its workers."""
    total = 0
    for pid in family(server.process.pid):
        status = Path(f"/proc/{pid}/status").read_text()
        total += int((re.search(r"VmRSS:\s+(\d+) kB", status) or [0, 0])[1]) * 1024
    return total


def streams(server: Server) -> int:
    """How many long answers are under way, by the server's own count."""
    text = httpx2.get(f"{server.url}/metrics").text
    return int(float((re.search(r"^auditplane_streams ([0-9.]+)$", text, re.MULTILINE) or ["", "-1"])[1]))


def stalled(big: Tenant, path: str) -> socket.socket:
    """A reader that asked for a trail, took a little of it, and reads no more."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", big.server.port))
    key = big.reader.headers["X-Bindplane-Api-Key"]
    reader.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Bindplane-Api-Key: {key}\r\n\r\n".encode())
    assert reader.recv(512).startswith(b"HTTP/1.1 200")
    return reader


def eventually(check: Callable[[], bool], seconds: float = 30) -> None:
    """Passes when something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_slow_readers_hold_little_memory_and_nobody_up(big: Tenant) -> None:
    """Thirty readers of a big trail that stall: memory stays flat, others read and record as before, and when
    they vanish all that they held is let go of."""
    _, body = raw_answer(big.reader, EVENTS)
    outstanding = 30 * len(body)
    before = resident_bytes(big.server)
    paths = (EVENTS, f"{EVENTS}?order=asc", DOWNLOAD)
    readers = [stalled(big, paths[number % 3]) for number in range(30)]
    try:
        eventually(lambda: streams(big.server) == 30)
        began = time.monotonic()
        big.record(event())
        assert len(big.docs(limit=1000, resource_kind="Source")) == 1000
        assert time.monotonic() - began < 10
        _, again = raw_answer(big.reader, DOWNLOAD, Accept_Encoding="zstd")
        assert len(again) > MIB
        grown = resident_bytes(big.server) - before
        assert outstanding > 600 * MIB
        assert grown < (64 + 30 * 6) * MIB, f"{grown // MIB} MiB more"
    finally:
        for reader in readers:
            reader.close()
    eventually(lambda: streams(big.server) == 0)


def test_a_download_does_not_hold_up_recording(big: Tenant) -> None:
    """While everything is downloaded again and again, single events are recorded in reasonable time."""
    with ThreadPoolExecutor(4) as readers:
        running = [readers.submit(raw_answer, big.reader, DOWNLOAD) for _ in range(4)]
        slowest = 0.0
        while not all(each.done() for each in running):
            began = time.monotonic()
            big.record(event())
            slowest = max(slowest, time.monotonic() - began)
        sizes = {len(each.result()[1]) for each in running}
    assert min(sizes) > 15 * MIB
    assert slowest < 5


def test_a_stalled_answer_goes_on_when_its_reader_does(big: Tenant) -> None:
    """And ends as a whole one does: with the last chunk."""
    reader = stalled(big, EVENTS)
    time.sleep(0.5)
    reader.settimeout(10)
    end, size = b"", 512
    while not end.endswith(b"]\n\r\n0\r\n\r\n"):
        more = reader.recv(MIB)
        assert more
        end, size = (end + more)[-16:], size + len(more)
    reader.close()
    assert size > 15 * MIB
