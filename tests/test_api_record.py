"""Recording over real HTTP: what is taken is on disk, in order, once; what is refused leaves nothing."""

import gzip
import itertools
import json
import random
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import msgspec
import pytest

from auditplane import limits, ulid
from auditplane.times import format_us, parse_rfc3339
from server import start
from tenants import EVENTS, Json, Tenant, client, event, events, ids, problems_of, recorded

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

JSON = "application/json"
NDJSON = "application/x-ndjson"
MIB = 1024 * 1024
BODY_MAX = 16 * MIB
A_ULID = "01JQ00000000000000000000AB"

PACK: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": lambda body: gzip.compress(body, 1),
    "zstd": zstd.compress,
}


def encoded(given: object) -> bytes:
    return msgspec.json.encode(given)


def lines(given: list[Json]) -> bytes:
    return b"\n".join(map(encoded, given))


def post(tenant: Tenant, body: bytes | Iterator[bytes], **headers: str) -> httpx2.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return tenant.writer.post(EVENTS, content=body, headers=given)


def assert_nothing_stored(tenant: Tenant) -> None:
    assert tenant.docs() == []


FORMS = [
    (JSON, "identity", 1), (f"{JSON}; charset=utf-8", "", 1), ("Application/JSON", "gzip", 1),
    (None, "zstd", 1),
    (JSON, "GZIP", 3), (JSON, "zstd", 3), (NDJSON, "identity", 1), (NDJSON, "x-gzip", 3), (NDJSON, "zstd", 5),
]  # fmt: skip


@pytest.mark.parametrize(("media", "coding", "members"), FORMS)
def test_each_form_of_a_body_is_read(tenant: Tenant, media: str | None, coding: str, members: int) -> None:
    """However the events are sent, the ids come in the order given, and the list shows them reversed."""
    given = events(5)
    body = lines(given) if media == NDJSON else encoded(given)
    compress = PACK[coding.lower().removeprefix("x-") or "identity"]
    cuts = [len(body) * part // members for part in range(members + 1)]
    packed = b"".join(compress(body[a:b]) for a, b in itertools.pairwise(cuts))
    headers = {"Content-Encoding": coding, **({"Content-Type": media} if media else {})}
    found = recorded(tenant.writer.post(EVENTS, content=packed, headers=headers))
    shown = tenant.docs(order="asc")
    assert ids(shown) == found
    assert [doc["resourceName"] for doc in shown] == [one["resourceName"] for one in given]
    assert ids(tenant.docs()) == found[::-1]


def test_one_object_is_an_event(tenant: Tenant) -> None:
    (made,) = recorded(post(tenant, encoded(event(user="Zoë ✓"))))
    (shown,) = tenant.docs()
    assert shown["id"] == made
    assert shown["user"] == "Zoë ✓"
    assert list(shown) == [
        "id",
        "timestamp",
        "resourceName",
        "description",
        "resourceKind",
        "action",
        "user",
        "account",
    ]
    assert shown["account"] == tenant.account
    assert shown["description"] == f"Modified Source {shown['resourceName']}"


def test_a_body_in_many_chunks_is_one_body(tenant: Tenant) -> None:
    body = encoded(events(50))
    assert len(recorded(post(tenant, iter([body[i : i + 7] for i in range(0, len(body), 7)])))) == 50


@pytest.mark.parametrize(
    ("media", "body"),
    [
        (JSON, b""), (JSON, b" \n "), (JSON, b"[]"), (JSON, b"[ ]"), (NDJSON, b""), (NDJSON, b"\n\n \n"),
        (JSON, b"null"), (JSON, b"1"), (JSON, b'"x"'), (JSON, b"{"), (JSON, b"[{]"), (JSON, b"{}"),
        (JSON, b"[null]"), (JSON, b"[[]]"), (JSON, b"\xff\xfe"), (JSON, b"\x00"), (JSON, b"["),
        (JSON, b"nul"),
        (JSON, b"[" * 100_000), (JSON, b'{"a":' * 100_000), (NDJSON, b"{}\n{}\n"), (NDJSON, b"[]"),
        (NDJSON, b"["), (NDJSON, b"\xff"), (JSON, b"\xef\xbb\xbf"),
    ],
)  # fmt: skip
def test_what_is_no_events_is_400(empty: Tenant, media: str, body: bytes) -> None:
    problems_of(post(empty, body, Content_Type=media), 400)
    assert_nothing_stored(empty)


@pytest.mark.parametrize(
    "media", ["text/plain", "application/xml", "multipart/form-data", "json", "application/json2"]
)
def test_other_content_types_are_415(empty: Tenant, media: str) -> None:
    (sentence,) = problems_of(post(empty, encoded(event()), Content_Type=media), 415)
    assert JSON in sentence
    assert_nothing_stored(empty)


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "compress", "\xff", "gzip;q=1"])
def test_other_content_encodings_are_415(empty: Tenant, coding: str) -> None:
    answer = empty.writer.post(
        EVENTS, content=encoded(event()), headers=[(b"Content-Encoding", coding.encode("latin-1"))]
    )
    assert "gzip" in problems_of(answer, 415)[0]
    assert_nothing_stored(empty)


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
@pytest.mark.parametrize("damage", ["cut", "tail", "flipped", "other"])
def test_damaged_compression_is_400(
    empty: Tenant, coding: str, compress: Callable[[bytes], bytes], damage: str
) -> None:
    """A body that is cut, or goes on after its end, or is not compressed at all, stores nothing."""
    whole = compress(encoded(events(20)))
    body = {
        "cut": whole[:-3],
        "tail": whole + b"tail",
        "flipped": whole[:20] + bytes([whole[20] ^ 255]) + whole[21:],
        "other": encoded(event()),
    }[damage]
    problems_of(post(empty, body, Content_Encoding=coding), 400)
    assert_nothing_stored(empty)


PADDED = 20


def padded(size: int) -> bytes:
    body = encoded(events(PADDED, user="padded"))
    return body + b" " * (size - len(body))


@pytest.mark.parametrize("coding", PACK)
def test_a_body_may_have_16_mib_and_not_a_byte_more(tenant: Tenant, coding: str) -> None:
    """The bound holds before and after decompression, and for a body that does not tell its length."""
    recorded(post(tenant, PACK[coding](padded(BODY_MAX)), Content_Encoding=coding))
    sentences = problems_of(post(tenant, PACK[coding](padded(BODY_MAX + 1)), Content_Encoding=coding), 413)
    assert "16 MiB" in sentences[0]
    assert len(tenant.docs()) == PADDED


def test_what_is_far_too_large_for_its_events_is_refused_unread(empty: Tenant) -> None:
    """To decode it would hold up whoever records meanwhile."""
    for body in (b"9" * BODY_MAX, b'["' + b"\\n" * (BODY_MAX // 2 - 2) + b'"]', b"[" * BODY_MAX):
        assert "far more" in problems_of(post(empty, body), 400)[0]
    assert_nothing_stored(empty)


def test_a_body_of_unknown_length_has_the_same_bound(tenant: Tenant) -> None:
    def chunks(body: bytes) -> Iterator[bytes]:
        yield from (body[i : i + MIB] for i in range(0, len(body), MIB))

    recorded(post(tenant, chunks(padded(BODY_MAX))))
    problems_of(post(tenant, chunks(padded(BODY_MAX + 1))), 413)
    assert len(tenant.docs()) == PADDED


def _gzip_zeros(size: int) -> bytes:
    pack = zlib.compressobj(1, wbits=31)
    return b"".join([*(pack.compress(bytes(MIB)) for _ in range(size // MIB)), pack.flush()])


def _zstd_zeros(size: int) -> bytes:
    pack = zstd.ZstdCompressor()
    return b"".join([*(pack.compress(bytes(MIB)) for _ in range(size // MIB)), pack.flush()])


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "256 MiB gzip": ("gzip", lambda: _gzip_zeros(256 * MIB)),
    "1 GiB zstd": ("zstd", lambda: _zstd_zeros(1024 * MIB)),
    "empty members": ("gzip", lambda: gzip.compress(b"") * (BODY_MAX // 20)),
    "empty frames": ("zstd", lambda: zstd.compress(b"") * (BODY_MAX // 9)),
    "members of a MiB": ("gzip", lambda: gzip.compress(bytes(MIB)) * 1_000),
    "frames of a MiB": ("zstd", lambda: zstd.compress(bytes(MIB)) * 10_000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_little(empty: Tenant, bomb: str) -> None:
    """Whatever a body would grow to, it is refused soon, and others are served meanwhile."""
    coding, make = BOMBS[bomb]
    body = make()
    with ThreadPoolExecutor(1) as beside:
        began = time.monotonic()
        answer = beside.submit(post, empty, body, Content_Encoding=coding)
        slowest = 0.0
        while not answer.done():
            asked = time.monotonic()
            assert empty.reader.get("/health").status_code == 200
            slowest = max(slowest, time.monotonic() - asked)
        took = time.monotonic() - began
    problems_of(answer.result(), 413)
    assert took < 20
    assert slowest < 5


@pytest.mark.parametrize("media", [JSON, NDJSON])
def test_10_000_events_are_taken_and_not_one_more(tenant: Tenant, media: str) -> None:
    given = events(limits.BATCH_EVENTS_MAX + 1)
    pack = lines if media == NDJSON else encoded
    assert "10,000" in problems_of(post(tenant, pack(given), Content_Type=media), 413)[0]
    assert_nothing_stored(tenant)
    found = recorded(post(tenant, pack(given[:-1]), Content_Type=media))
    assert len(set(found)) == limits.BATCH_EVENTS_MAX
    assert ids(tenant.docs(order="asc")) == found


def test_a_body_of_far_too_many_tiny_events_is_refused_soon(empty: Tenant) -> None:
    began = time.monotonic()
    problems_of(post(empty, b"[" + b"{}," * 5_000_000 + b"{}]"), 413)
    problems_of(post(empty, b"{}\n" * 5_000_000, Content_Type=NDJSON), 413)
    assert time.monotonic() - began < 30


def without(member: str) -> Json:
    given = event()
    del given[member]
    return given


WRONG: dict[str, tuple[Json, str]] = {
    "no user": (without("user"), ".user"),
    "no action": (without("action"), ".action"),
    "no kind": (without("resourceKind"), ".resourceKind"),
    "no name": (without("resourceName"), ".resourceName"),
    "empty user": (event(user=""), ".user"),
    "long user": (event(user="u" * 257), ".user"),
    "long action": (event(action="a" * 65), ".action"),
    "long description": (event(description="d" * 4097), ".description"),
    "unknown member": (event(resourcename="x"), ".resourcename"),
    "number": (event(user=7), ".user"),
    "control character": (event(user="a\x00b"), ".user"),
    "id": (event(id="not-a-ulid"), ".id"),
    "date": (event(timestamp="yesterday"), ".timestamp"),
    "no such day": (event(timestamp="2025-02-29T00:00:00Z"), ".timestamp"),
    "before 1970": (event(timestamp="1969-12-31T23:59:59.999999Z"), ".timestamp"),
    "no offset": (event(timestamp="2025-02-28T00:00:00"), ".timestamp"),
    "details": (event(details=[1]), ".details"),
    "long details": (event(details={"a": "b" * 17_000}), ".details"),
    "kind": (event(resourceKind="Sauce"), ".resourceKind"),
}


@pytest.mark.parametrize("media", [JSON, NDJSON])
@pytest.mark.parametrize("case", WRONG)
def test_one_wrong_event_keeps_all_out(empty: Tenant, case: str, media: str) -> None:
    """The problem names the position and the member; not one of the batch is stored."""
    wrong, member = WRONG[case]
    batch = [*events(3), wrong, *events(3)]
    body = lines(batch) if media == NDJSON else encoded(batch)
    (sentence,) = problems_of(post(empty, body, Content_Type=media), 400)
    assert sentence.startswith(f"events[3]{member}: ")
    assert_nothing_stored(empty)


def test_every_wrong_event_is_named_up_to_twenty(empty: Tenant) -> None:
    positions = sorted(random.Random(1).sample(range(1_000), 15))
    batch = [event(user="") if i in positions else event() for i in range(1_000)]
    found = problems_of(post(empty, encoded(batch)), 400)
    assert [sentence.split(".")[0] for sentence in found] == [f"events[{i}]" for i in positions]
    many = problems_of(post(empty, encoded(events(100, user="", action=""))), 400)
    assert [sentence.split(":")[0] for sentence in many[:20]] == [
        f"events[{i}].{member}" for i in range(10) for member in ("action", "user")
    ]
    assert len(many) <= limits.PROBLEMS_LISTED_MAX + 1
    assert_nothing_stored(empty)


def test_an_unknown_kind_names_the_nearest(empty: Tenant) -> None:
    for wrong, near in (
        ("Sauce", "Source"),
        ("fleet", "Fleet"),
        ("ApiKey", "APIKey"),
        ("Prosessor", "Processor"),
    ):
        (sentence,) = problems_of(post(empty, encoded(event(resourceKind=wrong))), 400)
        assert f"did you mean {near}?" in sentence
    assert_nothing_stored(empty)


def test_further_kinds_come_by_configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A kind of AUDITPLANE_KINDS_EXTRA is recorded, filtered by, and stands in the OpenAPI."""
    env = {"AUDITPLANE_KINDS_EXTRA": "Pipeline, Gateway"}
    server = start(tmp_path_factory.mktemp("kinds") / "data", env=env)
    with server, client(server.url, server.admin_key) as admin:
        recorded(admin.post(EVENTS, json=event(resourceKind="Pipeline")))
        shown = admin.get(EVENTS, params={"resource-kind": "Pipeline"}).json()
        assert [doc["resourceKind"] for doc in shown] == ["Pipeline"]
        kinds = admin.get("/openapi.json").json()["components"]["schemas"]["model.Kind"]["enum"]
        assert kinds[-2:] == ["Pipeline", "Gateway"]
        (sentence,) = problems_of(admin.post(EVENTS, json=event(resourceKind="Gatway")), 400)
        assert "did you mean Gateway?" in sentence


def test_a_kind_that_was_not_configured_is_unknown(empty: Tenant) -> None:
    problems_of(post(empty, encoded(event(resourceKind="Pipeline"))), 400)
    assert "Pipeline" not in empty.reader.get("/openapi.json").text


# Identity.


def test_the_same_event_again_is_answered_and_not_stored_again(tenant: Tenant) -> None:
    given = event(
        id=A_ULID.lower(), timestamp="2025-03-18T18:21:09Z", configuration="gw:7", details={"b": 1, "a": 2.50}
    )
    for _ in range(3):
        assert recorded(post(tenant, encoded(given))) == [A_ULID]
    assert recorded(post(tenant, encoded([given, given]))) == [A_ULID, A_ULID]
    (shown,) = tenant.docs()
    assert shown["id"] == A_ULID
    assert shown["timestamp"] == "2025-03-18T18:21:09.000000Z"


def test_an_id_that_the_server_made_is_known_too(tenant: Tenant) -> None:
    given = event()
    (made,) = tenant.record(given)
    assert tenant.record({**given, "id": made}) == [made]
    problems_of(post(tenant, encoded({**given, "id": made, "user": "another"})), 409)
    assert len(tenant.docs()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"user": "u2"}, {"action": "Deleted"}, {"resourceKind": "Agent"}, {"resourceName": "n2"},
        {"description": "d2"}, {"configuration": "gw:8"}, {"timestamp": "2025-03-18T18:21:09.000001Z"},
        {"details": {"a": 2}}, {"details": {"a": 1, "b": 1}},
    ],
)  # fmt: skip
def test_other_content_of_a_known_id_is_409(tenant: Tenant, change: Json) -> None:
    """Nothing of such a batch is stored, whether the id is known from before or from earlier in it."""
    given = {
        "id": A_ULID, "timestamp": "2025-03-18T18:21:09Z", "resourceName": "n", "description": "d",
        "resourceKind": "Source", "configuration": "gw:7", "action": "Modified", "user": "u",
        "details": {"a": 1},
    }  # fmt: skip
    other = {**given, **change}
    sentences = problems_of(post(tenant, encoded([event(), given, other])), 409)
    assert A_ULID in sentences[0]
    assert_nothing_stored(tenant)
    tenant.record(given)
    problems_of(post(tenant, encoded([event(), other, event()])), 409)
    assert tenant.docs()[0]["id"] == A_ULID
    assert len(tenant.docs()) == 1


def test_a_repeated_event_keeps_its_place_among_new_ones(tenant: Tenant) -> None:
    (known,) = tenant.record(event(id=A_ULID, resourceName="known", user="u"))
    first, again, last = tenant.record(event(), event(id=A_ULID, resourceName="known", user="u"), event())
    assert again == known
    assert ids(tenant.docs(order="recorded")) == [known, first, last]


def test_concurrent_requests_with_one_id_store_it_once(tenant: Tenant) -> None:
    given = [event(id=ulid.make(i << 11, b"AB" * 6)) for i in range(20)]
    assert all(ulid.is_ulid(one["id"]) for one in given)
    writer, body = tenant.writer, encoded(given)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: recorded(writer.post(EVENTS, content=body)), range(24)))
    assert answers == [[one["id"] for one in given]] * 24
    assert len(tenant.docs()) == 20


# Time.


def in_seconds(seconds: float) -> str:
    return format_us(time.time_ns() // 1000 + round(seconds * 1_000_000))


def test_of_a_member_that_is_given_twice_the_last_counts(tenant: Tenant) -> None:
    body = encoded(event(user="last")).replace(b"{", b'{"user":"first",', 1)
    assert post(tenant, body).status_code == 201
    assert [doc["user"] for doc in tenant.docs()] == ["last"]
    assert post(tenant, body[:-1] + b',"details":{"a":{"b":1,"b":2}}}').status_code == 400


def test_a_timestamp_of_the_past_is_kept_to_the_microsecond(tenant: Tenant) -> None:
    given = {
        "1970-01-01T00:00:00Z": "1970-01-01T00:00:00.000000Z",
        "2025-03-18T20:21:09.1+02:00": "2025-03-18T18:21:09.100000Z",
        "2025-03-18t18:21:09.123456789z": "2025-03-18T18:21:09.123456Z",
        "2024-02-29T23:59:59-00:30": "2024-03-01T00:29:59.000000Z",
    }
    tenant.record(*(event(timestamp=text) for text in given))
    assert [doc["timestamp"] for doc in tenant.docs(order="recorded")] == list(given.values())


def test_the_near_future_becomes_the_servers_time(tenant: Tenant) -> None:
    """So a poller that remembers the newest timestamp does not lose what comes next."""
    (first,) = tenant.record(event(timestamp=in_seconds(50)))
    (second,) = tenant.record(event())
    assert ids(tenant.docs()) == [second, first]
    newest = parse_rfc3339(tenant.docs()[0]["timestamp"])
    assert newest <= time.time_ns() // 1000


def test_the_far_future_is_400(empty: Tenant) -> None:
    batch = [event(), event(timestamp=in_seconds(70)), event(timestamp="9999-12-31T23:59:59.999999Z")]
    found = problems_of(post(empty, encoded(batch)), 400)
    assert [sentence.split(":")[0] for sentence in found] == ["events[1].timestamp", "events[2].timestamp"]
    assert_nothing_stored(empty)


def test_assigned_timestamps_rise_strictly_across_concurrent_writers(tenant: Tenant) -> None:
    """Unique whole microseconds, in the order of commit."""
    writer, body = tenant.writer, encoded(events(40))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: recorded(writer.post(EVENTS, content=body)), range(50)))
    times = [doc["timestamp"] for doc in tenant.docs(order="recorded")]
    assert len(times) == 2_000
    assert all(a < b for a, b in itertools.pairwise(times))
    assert all(len(text) == len("2026-03-18T18:21:09.000001Z") for text in times)


# Accounts.


def test_an_account_member_of_another_account_is_403(tenant: Tenant, neighbour: Tenant) -> None:
    for body in (
        encoded(event(account=neighbour.account)),
        encoded([event(), event(account="default")]),
        encoded([event(user=""), event(account=neighbour.account)]),
    ):
        problems_of(post(tenant, body), 403)
    recorded(post(tenant, encoded([event(account=tenant.account), event(account=None), event(account="")])))
    assert {doc["account"] for doc in tenant.docs()} == {tenant.account}
    assert_nothing_stored(neighbour)


def test_a_parameter_is_refused(empty: Tenant) -> None:
    problems_of(empty.writer.post(f"{EVENTS}?account=other", content=encoded(event())), 400)
    assert_nothing_stored(empty)


def test_what_comes_back_is_what_was_sent(tenant: Tenant) -> None:
    """Awkward texts come through byte by byte, in the list and by id."""
    texts = [
        '"',
        "\\",
        "a\nb",
        "a\r\nb",
        "\t",
        "=1+1",
        "'",
        "é",
        "e\u0301",
        "😀",
        "\u2028",
        "\ufffd",
        "</script>",
        " x ",
    ]
    details = {"z": 1, "a": [1.50, 1e300, -0.0], "text": texts, "n": None, "deep": {"a": {"b": [{}]}}}
    given = [event(user=text, resourceName=text, configuration=f"c{text}", details=details) for text in texts]
    body = json.dumps(given).encode()
    found = recorded(post(tenant, body))
    shown = tenant.docs(order="asc")
    for one, doc, made in zip(given, shown, found, strict=True):
        assert {name: doc[name] for name in ("user", "resourceName", "configuration", "action")} == {
            name: one[name] for name in ("user", "resourceName", "configuration", "action")
        }
        answer = tenant.reader.get(f"{EVENTS}/{made}")
        assert b'"details":{"z":1,"a":[1.5,1e+300,-0.0],"text":' in answer.content
        assert list(json.loads(answer.content)["details"]) == list(details)


def counted(tenant: Tenant, name: str) -> float:
    """The value of a metric."""
    text = tenant.reader.get("/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def test_metrics_tell_how_much_and_not_of_whom(tenant: Tenant) -> None:
    recorded_before = counted(tenant, "auditplane_events_recorded_total")
    labels = 'auditplane_request_seconds_count{method="POST",route="/v1/audit-events",status="201"}'
    requests_before = counted(tenant, labels)
    for _ in range(3):
        tenant.record(*events(7, user="somebody@example.com"))
    problems_of(post(tenant, b"[]"), 400)
    assert counted(tenant, "auditplane_events_recorded_total") == recorded_before + 21
    assert counted(tenant, labels) == requests_before + 3
    text = tenant.client(None).get("/metrics").text
    for private in (
        tenant.account,
        "somebody",
        *(key["id"] for key in tenant.admin.get("/v1/api-keys").json()["apiKeys"]),
    ):
        assert private not in text
