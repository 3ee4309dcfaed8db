"""Evidence over real HTTP: from the route, the client and the command, and who may have it."""

import base64
import http.client
import io
import json
import random
import socket
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import pytest

from auditplane.client import Client, ConnectionLost, Filter, Refused
from auditplane.evidence import verify
from auditplane.store.sqlite.block import GONE, pack_numbers, unpack_numbers
from auditplane.store.sqlite.database import fetch
from cutting import cutting_proxy
from folders import FreeFolder
from keepers import wait_for
from remote import Remote
from tenants import COUNT, DOWNLOAD, EVENTS, EVIDENCE, Tenant, event, events, problems_of


def verifier(tenant: Tenant) -> str:
    key: str = tenant.reader.get(f"/v1/log/{tenant.account}/key").text.strip()
    return key


def checked(data: bytes, tenant: Tenant, folder: Path) -> verify.Report:
    path = folder / "checked.zip"
    path.write_bytes(data)
    return verify.check(str(path), verifier(tenant))


def member(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return archive.read(name)


def manifest(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(member(data, "manifest.json"))
    return found


def test_what_is_answered_proves_itself(tenant: Tenant, tmp_path: Path) -> None:
    """The events are those of the list and of the download, in the order of their recording."""
    tenant.record(*events(300, description="=1+1", details={"a": [1.5, "é"]}))
    tenant.record(*events(5, timestamp="2020-01-01T00:00:00Z"))
    verifier(tenant)  # to make a key is an event too
    key_id, secret = tenant.key("reader", description="the auditor")
    auditor = tenant.client(secret)
    answer = auditor.get(EVIDENCE)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Cache-Control"] == "no-store"
    named = f'attachment; filename="evidence-{tenant.account}.zip"'
    assert answer.headers["Content-Disposition"] == named
    report = checked(answer.content, tenant, tmp_path)
    assert not report.wrong
    assert any("Complete" in line for line in report.proved)
    lines = member(answer.content, "events.ndjson").splitlines()
    assert [json.loads(line)["event"] for line in lines] == auditor.get(f"{EVENTS}?order=recorded").json()
    table = auditor.get(f"{DOWNLOAD}?order=recorded").content
    assert member(answer.content, "events.csv") == table
    told = manifest(answer.content)
    assert told["by"] == {"key": key_id, "description": "the auditor"}
    assert told["account"] == tenant.account
    assert told["size"] == int(answer.headers["Auditplane-Log-Size"]) == len(lines)


@pytest.mark.parametrize(
    "parameters",
    [
        {"user": ["USER3@example.com", "bob"]},
        {"min-date": "20200101", "max-date": "20200102"},
        {"resource-kind": "Source", "action": "Modified", "q": "otlp"},
        {"configuration-name": "gw"},
        {"resource-name": "nothing"},
        {"user": ""},
    ],
)
def test_the_filters_are_those_of_the_list(
    tenant: Tenant, tmp_path: Path, parameters: dict[str, Any]
) -> None:
    tenant.record(
        *events(30), *events(20, timestamp="2020-01-01T12:00:00Z"), *events(3, configuration="gw:7")
    )
    answer = tenant.reader.get(EVIDENCE, params=parameters)
    report = checked(answer.content, tenant, tmp_path)
    assert not report.wrong
    told = manifest(answer.content)
    assert told["events"]["count"] == tenant.reader.get(COUNT, params=parameters).json()["count"]
    given = {name: value if isinstance(value, list) else [value] for name, value in parameters.items()}
    assert told["filters"] == {name: values for name, values in given.items() if values != [""]}


def test_the_name_of_the_file_tells_of_which_time_it_is(empty: Tenant) -> None:
    answer = empty.reader.get(EVIDENCE, params={"min-date": "20260101", "max-date": "20260331"})
    name = f"evidence-{empty.account}-from-20260101-to-20260331.zip"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'


@pytest.mark.parametrize(
    "query",
    ["limit=1", "cursor=x", "order=asc", "after=0", "raw=true", "users=x", "min-date=x", "resource-kind=X"],
)
def test_what_the_list_refuses_and_what_makes_no_sense_is_400(empty: Tenant, query: str) -> None:
    problems_of(empty.reader.get(f"{EVIDENCE}?{query}"), 400)


def test_who_may_not_read_gets_no_evidence(empty: Tenant) -> None:
    problems_of(empty.client(None).get(EVIDENCE), 401)
    problems_of(empty.writer.get(EVIDENCE), 403)
    problems_of(empty.reader.post(EVIDENCE), 405)
    assert empty.reader.get(EVIDENCE).status_code == empty.admin.get(EVIDENCE).status_code == 200


def test_head_is_the_answer_without_its_body(tenant: Tenant) -> None:
    tenant.record(*events(3))
    whole, head = tenant.reader.get(EVIDENCE), tenant.reader.head(EVIDENCE)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("Content-Type", "Content-Disposition", "Auditplane-Log-Size"):
        assert head.headers[name] == whole.headers[name]
    assert tenant.reader.head(f"{EVIDENCE}?x=1").status_code == 400


def test_what_was_recorded_just_before_is_in_it(tenant: Tenant) -> None:
    """Whatever checkpoint there was; the log may grow while it is made."""
    for count in range(1, 6):
        (made,) = tenant.record(event())
        data = tenant.reader.get(EVIDENCE).content
        assert made.encode() in member(data, "events.ndjson")
        assert manifest(data)["size"] >= count


def test_the_client_gets_it(tenant: Tenant, tmp_path: Path) -> None:
    tenant.record(*events(20, user="ann"), *events(20, user="bob"))
    with Client(tenant.server.url, tenant.key("reader")[1]) as client:
        data = b"".join(client.evidence(Filter(users=("Ann",))))
        assert not checked(data, tenant, tmp_path).wrong
        assert manifest(data)["events"]["count"] == 20
        with pytest.raises(Refused):
            list(client.evidence(Filter(kinds=("nonsense",))))
    with cutting_proxy(tenant.server.port) as proxy:
        proxy.cuts = [5_000]
        with Client(proxy.url, tenant.key("reader")[1]) as client, pytest.raises(ConnectionLost):
            list(client.evidence())


def test_the_command_saves_it_whole_or_not_at_all(tenant: Tenant, tmp_path: Path) -> None:
    tenant.record(*[event(user="ann", description=random.randbytes(300).hex()) for _ in range(300)])
    tenant.record(*events(10, user="bob"))
    secret = tenant.key("reader")[1]
    remote, file = Remote(tenant.server.url, secret), tmp_path / "trail.zip"
    assert remote.output("evidence", "-o", file, "--user", "ANN", "--min-date", "20200101") == ""
    assert not checked(file.read_bytes(), tenant, tmp_path).wrong
    assert manifest(file.read_bytes())["events"]["count"] == 300
    printed = remote.call("evidence", "-o", "-", "--user", "bob").stdout
    assert manifest(printed)["events"]["count"] == 10
    before = file.read_bytes()
    with cutting_proxy(tenant.server.port) as proxy:
        proxy.cuts = [20_000]
        Remote(proxy.url, secret).failure("evidence", "-o", file)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checked.zip", "trail.zip"]
    assert "kind" in remote.failure("evidence", "-o", file, "--kind", "nonsense")
    remote.failure("evidence", status=2)
    remote.failure("evidence", "-o", "--user", status=2)


def test_an_answer_is_one_zip_whatever_encoding_is_accepted(tenant: Tenant) -> None:
    tenant.record(*events(3))
    for encoding in ("gzip", "zstd", "identity", "*"):
        answer: httpx2.Response = tenant.reader.get(EVIDENCE, headers={"Accept-Encoding": encoding})
        assert "Content-Encoding" not in answer.headers
        assert manifest(answer.content)["events"]["count"] >= 3


def forget_first(data: Path, account: str) -> None:
    """Lets the first event of a log be gone."""
    folder = FreeFolder(data)
    with folder.account(account) as store, store.maintenance() as connection:
        ((packed,),) = fetch(connection, "SELECT keys FROM entry WHERE first = 0")
        keys = unpack_numbers(packed)
        keys[0] = GONE
        fetch(connection, "UPDATE entry SET keys = ? WHERE first = 0", (pack_numbers(keys),))
    folder.close()


def test_an_answer_breaks_off_when_events_go_away_meanwhile(tenant: Tenant) -> None:
    """A reader who takes it slowly gets a reset, and never a file that contradicts itself."""
    for _ in range(2):
        blobs = [base64.b64encode(random.randbytes(10_000)).decode() for _ in range(600)]
        tenant.record(*[event(details={"blob": blob}) for blob in blobs])
    reader = http.client.HTTPConnection("127.0.0.1", tenant.server.port, timeout=60)
    reader.sock = socket.socket()
    reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.sock.connect(("127.0.0.1", tenant.server.port))
    reader.request("GET", EVIDENCE, headers={"X-Bindplane-Api-Key": tenant.key("reader")[1]})
    answer = reader.getresponse()
    assert answer.status == 200
    answer.read(1)
    forget_first(tenant.server.data, tenant.account)
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        answer.read()
    reader.close()
    wait_for(lambda: "expired or were erased while the evidence was made" in tenant.server.output)
