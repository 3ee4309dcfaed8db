"""Reading over real HTTP: list, download and count agree with each other and with a naive filter."""

import csv
import functools
import io
import itertools
import random
import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import httpx2
import msgspec
import pytest

from auditplane.access import Access
from auditplane.event import KINDS
from server import Server
from tenants import (
    COUNT,
    DOWNLOAD,
    EVENTS,
    EVIDENCE,
    KEYS,
    Json,
    Tenant,
    event,
    events,
    events_of,
    ids,
    new_tenant,
    problems_of,
    walk,
)

Params = list[tuple[str, str | int | float | bool | None]]
NOON = datetime(2026, 3, 18, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
USERS = (
    "ann@example.com",
    "Ann@Example.com",
    "ZOË",
    "zoë",
    "Straße",
    "STRASSE",
    "+plus&amp=1",
    "bob",
    "a b",
    "%41",
    "u'",
)
NAMES = ("otlp", "otlp ", "Otlp", "kafka_receiver", "日本語", "a/b?c#d", '"quoted", name', "=HYPERLINK()")
CONFIGURATIONS = (None, "gw", "gw:1", "gw:2", "gw:12", "a:b", "a:b:3", "edge-fleet:7", "Gw:1", "ü:1")
ACTIONS = ("Created", "Modified", "modified", "Deleted", "Started")
WORDS = ("rolled back", "token-rotation", "ÉTÉ 2026", "x_y", "release.42", "naïve")


def invented(count: int) -> Iterator[Json]:
    """Events with few values of each member, so that filters meet; many share a microsecond or come late."""
    chosen = random.Random(7)
    base = NOON - timedelta(days=30)
    for number in range(count):
        at = base + timedelta(seconds=number * 200)
        match chosen.randrange(4):
            case 0:
                at = base + timedelta(seconds=chosen.randrange(count * 200))
            case 1:
                at = base + timedelta(days=chosen.randrange(30), microseconds=chosen.randrange(2))
        given: Json = {
            "resourceName": chosen.choice(NAMES) if chosen.random() < 0.7 else f"name-{number}",
            "resourceKind": chosen.choice(KINDS[:6]) if chosen.random() < 0.9 else chosen.choice(KINDS),
            "action": chosen.choice(ACTIONS),
            "user": chosen.choice(USERS),
            "configuration": chosen.choice(CONFIGURATIONS),
        }
        if chosen.random() < 0.5:
            given["description"] = f"{chosen.choice(WORDS)} by {chosen.choice(USERS)} no {number % 50}"
        if number < count * 3 // 4:
            given["timestamp"] = at.isoformat()
        yield given


class Trail:
    """Some 8,000 events, and all of their docs in the order they were recorded in."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        for batch in _batches(invented(8_000), 2_000):
            tenant.record(*batch)
        self.docs = events_of(tenant.reader.get(EVENTS, params={"order": "recorded"}))
        assert len(self.docs) >= 8_000

    def some(self, chosen: random.Random) -> Json:
        """One of the docs."""
        return chosen.choice(self.docs)


def _batches(items: Iterator[Json], size: int) -> Iterator[list[Json]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


@pytest.fixture(scope="session")
def trail(server: Server, access: Access) -> Iterator[Trail]:
    for tenant in new_tenant(server, access):
        yield Trail(tenant)


# The naive filter: nothing of the server's own code.


@functools.cache
def folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


@functools.cache
def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W_]+", folded(text)))


def moment(doc: Json) -> datetime:
    return _moment(doc["timestamp"])


@functools.cache
def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def passes(doc: Json, name: str, wanted: Sequence[str]) -> bool:
    match name:
        case "user":
            return folded(doc["user"]) in map(folded, wanted)
        case "configuration-name":
            own = doc.get("configuration")
            return own is not None and any(own == each or own.rpartition(":")[0] == each for each in wanted)
        case "action":
            return doc["action"] in wanted
        case "resource-kind":
            return doc["resourceKind"] in wanted
        case "resource-name":
            return doc["resourceName"] in wanted
        case "q":
            text = "\n".join(
                [doc["description"], doc["resourceName"], doc["user"], doc.get("configuration", "")]
            )
            return any(words(each) <= words(text) for each in wanted)
        case "min-date":
            return moment(doc) >= _moment(wanted[0])
        case "max-date":
            return moment(doc) <= _moment(wanted[0])
    raise AssertionError(name)


def naively(docs: Sequence[Json], parameters: Params) -> set[str]:
    """The ids of the docs that pass all filters."""
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        given.setdefault(name, []).append(str(value))
    found = docs
    for name, wanted in given.items():
        found = [doc for doc in found if passes(doc, name, wanted)]
    return {doc["id"] for doc in found}


def some_filters(chosen: random.Random, trail: Trail) -> Params:
    """Filters whose values stand in the trail, or nearly do."""
    found: Params = []
    for name in chosen.sample(
        ["user", "configuration-name", "action", "resource-kind", "resource-name", "q"], 3
    ):
        for _ in range(chosen.choice([0, 0, 1, 1, 2])):
            doc = trail.some(chosen)
            own = doc.get("configuration", "gw")
            word = chosen.sample(sorted(words(doc["description"] + " " + doc["user"])), 2)
            value = {
                "user": chosen.choice(
                    [doc["user"], doc["user"].upper(), "nobody", unicodedata.normalize("NFD", doc["user"])]
                ),
                "configuration-name": chosen.choice([own, own.rpartition(":")[0] or own, own + "0", "a"]),
                "action": chosen.choice([doc["action"], doc["action"].lower()]),
                "resource-kind": doc["resourceKind"],
                "resource-name": chosen.choice([doc["resourceName"], doc["resourceName"].strip()]),
                "q": chosen.choice(
                    [word[0], " ".join(word), word[0].upper(), word[0][:-1] + "q", doc["user"]]
                ),
            }[name]
            found.append((name, value))
    if chosen.random() < 0.5:
        ends = sorted(moment(trail.some(chosen)) for _ in range(2))
        ends = [end + chosen.choice([-1, 0, 1]) * MICROSECOND for end in ends]
        dates = [
            ("min-date", min(ends).isoformat(timespec="microseconds")),
            ("max-date", max(ends).isoformat(timespec="microseconds")),
        ]
        found += chosen.sample(dates, chosen.choice([1, 2]))
    return found


def in_order(trail: Trail, found: set[str], order: str) -> list[str]:
    """The ids of what was found, as recorded or by time, in one microsecond by recording."""
    docs = [doc for doc in trail.docs if doc["id"] in found]
    if order != "recorded":
        docs.sort(key=moment, reverse=False)
    return ids(docs if order != "desc" else docs[::-1])


def from_csv(body: bytes) -> list[list[str]]:
    """The rows of a CSV file without its header row."""
    rows = list(csv.reader(io.StringIO(body.decode(), newline="")))
    assert rows[0] == [
        "id", "timestamp", "resourceName", "description", "resourceKind", "configuration", "action", "user",
        "account", "details",
    ]  # fmt: skip
    return rows[1:]


@pytest.mark.parametrize("seed", range(12))
def test_list_download_and_count_agree_with_a_naive_filter(trail: Trail, seed: int) -> None:
    """In each order and form, page by page or all at once."""
    chosen = random.Random(seed)
    filters = some_filters(chosen, trail)
    order = chosen.choice(["desc", "asc", "recorded"])
    parameters = [*filters, ("order", order)]
    reader = trail.tenant.reader
    expected = in_order(trail, naively(trail.docs, filters), order)

    shown = events_of(reader.get(EVENTS, params=parameters))
    assert ids(shown) == expected
    assert reader.get(COUNT, params=filters).json() == {"count": len(expected)}
    assert [row[0] for row in from_csv(reader.get(DOWNLOAD, params=parameters).content)] == expected
    lines = reader.get(EVENTS, params=parameters, headers={"Accept": "application/x-ndjson"})
    assert [msgspec.json.decode(line) for line in lines.content.splitlines()] == shown
    limit = max(1, len(expected) // chosen.choice([1, 2, 5]))
    pages = list(walk(reader, EVENTS, httpx2.QueryParams([*parameters, ("limit", str(min(limit, 10_000)))])))
    assert ids(list(itertools.chain(*pages))) == expected


def test_nothing_is_left_out_of_the_unfiltered_list(trail: Trail) -> None:
    reader = trail.tenant.reader
    everything = {doc["id"] for doc in trail.docs}
    assert len(everything) == len(trail.docs)
    for order in ("desc", "asc"):
        assert ids(events_of(reader.get(EVENTS, params={"order": order}))) == in_order(
            trail, everything, order
        )
    assert reader.get(COUNT).json() == {"count": len(everything)}


# Dates.

_OFFSETS = (timedelta(), timedelta(hours=2), timedelta(hours=-9, minutes=-30), timedelta(hours=14))
A_MOMENT = datetime(2026, 3, 1, 13, 14, 15, 120_000, tzinfo=UTC)


def date_forms() -> Iterator[tuple[str, datetime, datetime]]:
    """Texts of A4, each with the first and the last microsecond that it names."""
    second = A_MOMENT.replace(microsecond=0)
    day = second.replace(hour=0, minute=0, second=0)
    last = timedelta(seconds=1) - MICROSECOND
    yield second.strftime("%Y%m%d%H%M%S"), second, second + last
    yield second.strftime("%Y%m%d"), day, day + timedelta(days=1) - MICROSECOND
    yield second.strftime("%Y-%m-%dT%H:%M:%SZ"), second, second + last
    yield second.strftime("%Y-%m-%dt%H:%M:%Sz"), second, second + last
    for offset in _OFFSETS:
        local = second.astimezone(timezone(offset))
        written = local.strftime("%z")[:3] + ":" + local.strftime("%z")[3:]
        yield local.strftime("%Y-%m-%dT%H:%M:%S") + written, second, second + last
        yield local.strftime("%Y-%m-%d %H:%M:%S") + written, second, second + last
        yield (
            local.strftime("%Y-%m-%d %H:%M:%S.12") + written,
            A_MOMENT,
            A_MOMENT + timedelta(milliseconds=10) - MICROSECOND,
        )
        yield local.strftime("%Y-%m-%dT%H:%M:%S.120000") + written, A_MOMENT, A_MOMENT
        if not offset.seconds % 3600:
            yield local.strftime("%Y-%m-%d %H:%M:%S.120000") + written[:3], A_MOMENT, A_MOMENT


@pytest.fixture(scope="session")
def moments(server: Server, access: Access) -> Iterator[Tenant]:
    """An account with events around each border that a text of `date_forms` names."""
    for tenant in new_tenant(server, access):
        borders = {border for _, *both in date_forms() for border in both}
        steps = (-MICROSECOND, timedelta(), MICROSECOND)
        times = sorted({border + step for border in borders for step in steps})
        tenant.record(*(event(timestamp=at.isoformat()) for at in times))
        yield tenant


@pytest.mark.parametrize("plus", ["%2B", "+", "%20"])
@pytest.mark.parametrize("end", ["min-date", "max-date"])
def test_every_form_of_a_date_means_the_same(moments: Tenant, end: str, plus: str) -> None:
    """Both ends are inclusive; a maximum to the second or day takes in all of it; `+` may come as a blank."""
    everything = events_of(moments.reader.get(EVENTS))
    for text, first, last in date_forms():
        written = quote(text, safe=":+").replace("+", plus)
        expected = [
            doc["id"] for doc in everything
            if (moment(doc) >= first if end == "min-date" else moment(doc) <= last)
        ]  # fmt: skip
        for path in (EVENTS, COUNT, DOWNLOAD):
            answer = moments.reader.get(f"{path}?{end}={written}")
            assert answer.status_code == 200, (text, answer.text)
            if path == EVENTS:
                assert ids(events_of(answer)) == expected, text
            elif path == COUNT:
                assert answer.json()["count"] == len(expected), text
            else:
                assert [row[0] for row in from_csv(answer.content)] == expected, text


@pytest.mark.parametrize(
    "text",
    [
        "yesterday", "2026", "202603", "2026031", "2026031812", "20261301", "20260230", "20260318246060",
        "20260318240000", "2026-03-18", "2026-03-18T12:00:00", "2026-03-18 12:00:00", "2026-03-18T12:00Z",
        "2026-03-18T12:00:00+24:00", "2026-03-18T12:00:00+00:60", "2026-03-18T12:00:60Z", "1e9", "-1",
        "00000101", "٢٠٢٦٠٣١٨", "2026-03-18T12:00:00Z ", "20260318000000Z", "2025-02-29T00:00:00Z", "\x00",
        "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-03-18T12:00:00.Z",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["min-date", "max-date"])
def test_what_is_no_date_is_400(moments: Tenant, name: str, text: str) -> None:
    for path in (EVENTS, COUNT, DOWNLOAD):
        answer = moments.reader.get(path, params={name: text}, headers={"Accept": "application/json"})
        (sentence,) = problems_of(answer, 400)
        assert sentence.startswith(f"{name}: ")


def test_dates_of_far_away_are_dates(moments: Tenant) -> None:
    count = len(events_of(moments.reader.get(EVENTS)))
    for low, high, expected in (
        ("00010101", "99991231", count), ("19691231", "19691231235959", 0), ("99991231235959", "", 0),
        ("", "1969-12-31T23:59:59.999999Z", 0),
        ("0001-01-01T00:00:00Z", "9999-12-31 23:59:59.999999+00", count),
    ):  # fmt: skip
        for path in (EVENTS, DOWNLOAD):
            answer = moments.reader.get(path, params={"min-date": low, "max-date": high})
            assert answer.status_code == 200
        assert moments.reader.get(COUNT, params={"min-date": low, "max-date": high}).json() == {
            "count": expected
        }


def test_a_minimum_after_the_maximum_is_400(moments: Tenant) -> None:
    for low, high in (
        ("20260318120001", "20260318120000"),
        ("2026-03-18T12:00:00.000001Z", "2026-03-18T12:00:00.000000Z"),
        ("20260319", "20260318"),
    ):
        for path in (EVENTS, COUNT, DOWNLOAD):
            answer = moments.reader.get(path, params={"min-date": low, "max-date": high})
            assert problems_of(answer, 400) == ["min-date is after max-date; no event can be in between."]
    assert (
        moments.reader.get(COUNT, params={"min-date": "20260318", "max-date": "20260318"}).status_code == 200
    )


# Parameters.

ALL_EMPTY = "configuration-name=&user=&min-date=&max-date=&action=&resource-kind=&resource-name=&q="


def test_empty_values_are_as_good_as_none(trail: Trail) -> None:
    reader = trail.tenant.reader
    assert reader.get(f"{COUNT}?{ALL_EMPTY}").json() == {"count": len(trail.docs)}
    listed = reader.get(f"{EVENTS}?{ALL_EMPTY}&order=&after=&limit=&cursor=&")
    assert listed.content == reader.get(EVENTS).content
    assert reader.get(f"{DOWNLOAD}?{ALL_EMPTY}&raw=").content == reader.get(DOWNLOAD).content
    wanted = reader.get(EVENTS, params={"user": "bob"}).content
    assert reader.get(f"{EVENTS}?user=&user=bob&user=").content == wanted


MISSPELT = {
    "configuration": "configuration-name", "configurationName": "configuration-name", "minDate": "min-date",
    "maxDate": "max-date", "min_date": "min-date", "users": "user", "User": "user", "kind": "resource-kind",
    "resource_name": "resource-name", "actions": "action", "MIN-DATE": "min-date",
}  # fmt: skip


@pytest.mark.parametrize("path", [EVENTS, DOWNLOAD, COUNT, EVIDENCE])
def test_a_misspelt_parameter_is_400_and_names_the_nearest(trail: Trail, path: str) -> None:
    """With or without a value, alone or beside right ones: an unfiltered answer would be a leak."""
    for name, near in MISSPELT.items():
        for query in ({name: "x"}, {name: ""}, {"user": "bob", name: "x"}):
            sentences = problems_of(trail.tenant.reader.get(path, params=query), 400)
            assert f"did you mean {near}?" in sentences[0]
    for name in ("", "\x00", "☃", "a" * 300):
        problems_of(trail.tenant.reader.get(path, params={name: "x"}), 400)


def test_routes_without_parameters_take_none(tenant: Tenant) -> None:
    (made,) = tenant.record(event())
    for path in (f"{EVENTS}/{made}", KEYS):
        problems_of(tenant.admin.get(path, params={"user": "x"}), 400)
    problems_of(tenant.admin.post(KEYS, params={"role": "admin"}, json={"role": "reader"}), 400)
    problems_of(tenant.admin.delete(f"{KEYS}/{made}", params={"force": "1"}), 400)
    assert len(tenant.admin.get(KEYS).json()["apiKeys"]) == 2


def test_parameters_of_another_route_are_400(tenant: Tenant) -> None:
    for path, name, value in (
        (EVENTS, "raw", "true"), (DOWNLOAD, "limit", "5"), (DOWNLOAD, "cursor", "x"), (COUNT, "limit", "5"),
        (COUNT, "order", "asc"), (COUNT, "raw", "true"),
    ):  # fmt: skip
        problems_of(tenant.reader.get(path, params={name: value}), 400)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"), ("limit", "-1"), ("limit", "10001"), ("limit", "1.0"), ("limit", "x"),
        ("limit", "１"), ("limit", "+1"), ("limit", "9" * 30), ("order", "newest"), ("order", "DESC"),
        ("after", "1"),
        ("cursor", "x"), ("cursor", "AAAA"), ("cursor", "é"), ("cursor", "A" * 34),
        ("resource-kind", "source"),
        ("resource-kind", "Sauce"), ("q", "!?"), ("q", " "), ("q", "_"),
    ],
)  # fmt: skip
def test_impossible_values_are_400(trail: Trail, name: str, value: str) -> None:
    (sentence,) = problems_of(trail.tenant.reader.get(EVENTS, params={name: value}), 400)
    assert sentence.startswith(f"{name}: ")


@pytest.mark.parametrize("value", ["-2", "x", "1.5", "9223372036854775808"])
def test_impossible_indexes_are_400(trail: Trail, value: str) -> None:
    problems_of(trail.tenant.reader.get(EVENTS, params={"order": "recorded", "after": value}), 400)


@pytest.mark.parametrize("name", ["min-date", "max-date", "order", "limit", "cursor"])
def test_what_can_be_given_only_once_is(trail: Trail, name: str) -> None:
    value = {"order": "asc", "limit": "1", "cursor": "x"}.get(name, "20260101")
    assert problems_of(trail.tenant.reader.get(f"{EVENTS}?{name}={value}&{name}={value}"), 400) == [
        f"{name}: can be given only once."
    ]


def test_every_fault_of_a_request_is_named(trail: Trail) -> None:
    query = {
        "min-date": "x",
        "max-date": "y",
        "limit": "0",
        "order": "up",
        "resource-kind": "Sauce",
        "q": "-",
    }
    assert len(problems_of(trail.tenant.reader.get(EVENTS, params=query), 400)) == 6


# Pages.


@pytest.mark.parametrize(
    ("order", "filters"),
    [
        ("desc", {}), ("asc", {}), ("recorded", {}), ("desc", {"action": "Modified"}),
        ("asc", {"q": "walked"}),
        ("asc", {"action": "Modified", "min-date": "20260301"}), ("desc", {"min-date": "20260301"}),
    ],
)  # fmt: skip
def test_pages_show_the_events_of_the_first_request_once(tenant: Tenant, order: str, filters: Json) -> None:
    """Whatever others record meanwhile, with new timestamps, old ones or ones that are there already."""
    chosen = random.Random(order)

    def some(count: int) -> list[Json]:
        times = [None, *((NOON - timedelta(seconds=chosen.randrange(200))).isoformat() for _ in range(3))]
        return [
            event(
                timestamp=chosen.choice(times),
                action=chosen.choice(ACTIONS),
                description=chosen.choice(["walked", "ran"]),
            )
            for _ in range(count)
        ]

    tenant.record(*some(2_000))
    tenant.record(*some(500))
    expected = ids(events_of(tenant.reader.get(EVENTS, params={**filters, "order": order})))
    seen: list[str] = []
    for number, page in enumerate(
        walk(tenant.reader, EVENTS, httpx2.QueryParams({**filters, "order": order, "limit": 97}))
    ):
        seen += ids(page)
        if not number % 2:
            tenant.record(*some(150))
    assert seen == expected


def test_pages_stay_the_same_while_the_trail_is_sealed(tenant: Tenant) -> None:
    """Writers and the keeper at work all the while."""
    tenant.record(*events(9_000))
    expected = ids(events_of(tenant.reader.get(EVENTS)))
    stopping = threading.Event()

    def write() -> None:
        while not stopping.is_set():
            tenant.record(*events(1_000), *events(200, timestamp="2026-03-18T12:00:00Z"))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [ids(page) for page in walk(tenant.reader, EVENTS, httpx2.QueryParams({"limit": 700}))]
    finally:
        stopping.set()
        writer.join()
    assert list(itertools.chain(*seen)) == expected
    assert [len(page) for page in seen[:-1]] == [700] * (len(seen) - 1)


def test_a_link_is_there_exactly_when_there_is_more(trail: Trail) -> None:
    reader = trail.tenant.reader
    bob = len([doc for doc in trail.docs if doc["user"] == "bob"])
    for limit, more in ((bob - 1, True), (bob, False), (bob + 1, False)):
        answer = reader.get(EVENTS, params={"user": "bob", "limit": limit})
        assert ("Link" in answer.headers) is more
        assert len(answer.json()) == min(limit, bob)
    assert "Link" not in reader.get(EVENTS, params={"user": "nobody", "limit": 1}).headers
    assert reader.get(EVENTS, params={"user": "nobody", "limit": 1}).json() == []


def test_a_link_keeps_every_parameter(trail: Trail) -> None:
    """Those that were given several times too, and awkward characters."""
    reader = trail.tenant.reader
    given: Params = [
        ("user", "+plus&amp=1"), ("user", "ZOË"), ("user", "%41"), ("user", ""), ("q", "token"), ("q", "été"),
        ("min-date", "2026-01-01 00:00:00.000000+00"), ("limit", "3"),
    ]  # fmt: skip
    answer = reader.get(EVENTS, params=given)
    link = httpx2.URL(answer.links["next"]["url"])
    assert link.path == EVENTS
    assert [pair for pair in link.params.multi_items() if pair[0] != "cursor"] == [
        pair for pair in given if pair[1]
    ]
    expected = naively(trail.docs, [(n, v) for n, v in given if v and n not in ("limit", "min-date")])
    expected &= naively(trail.docs, [("min-date", "2026-01-01T00:00:00+00:00")])
    pages = list(walk(reader, EVENTS, httpx2.QueryParams(given)))
    assert set(ids(list(itertools.chain(*pages)))) == expected


def test_a_cursor_holds_for_its_query_and_any_limit(trail: Trail) -> None:
    reader = trail.tenant.reader
    first = reader.get(EVENTS, params={"user": "bob", "limit": 5})
    cursor = httpx2.URL(first.links["next"]["url"]).params["cursor"]
    rest = events_of(reader.get(EVENTS, params={"user": "bob", "cursor": cursor}))
    everything = events_of(reader.get(EVENTS, params={"user": "bob"}))
    assert [*first.json(), *rest] == everything
    assert events_of(reader.get(EVENTS, params={"user": "BOB", "cursor": cursor, "limit": 2})) == rest[:2]
    for other in ({"user": "ann"}, {}, {"user": "bob", "order": "asc"}, {"user": "bob", "q": "x"}):
        problems_of(reader.get(EVENTS, params={**other, "cursor": cursor}), 400)


def test_recorded_order_is_a_feed_that_misses_nothing(tenant: Tenant) -> None:
    """`after` and the Auditplane-Log-Size header: each event once, late ones too, with writers at work."""
    stopping = threading.Event()
    made: list[str] = []

    def write() -> None:
        while not stopping.is_set():
            made.extend(tenant.record(*events(20), *events(5, timestamp="2026-03-18T12:00:00Z")))

    reader = tenant.reader
    after, seen = -1, []
    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(made) < 1_000:
            answer = reader.get(EVENTS, params={"order": "recorded", "after": after})
            seen += [doc["id"] for doc in events_of(answer) if doc["resourceKind"] != "APIKey"]
            after = int(answer.headers["Auditplane-Log-Size"]) - 1
    finally:
        stopping.set()
        writer.join()
    seen += ids(tenant.docs(order="recorded", after=after))
    assert seen == made


@pytest.mark.parametrize("limit", [1, 7, 10_000])
def test_a_filtered_feed_goes_on_where_the_header_says(tenant: Tenant, limit: int) -> None:
    """Auditplane-Next-After: each event that matches once, those recorded between two pages too."""
    reader = tenant.reader
    tenant.record(*events(10))
    wanted: list[str] = []
    seen: list[str] = []
    after, rounds = -1, 0
    while rounds < 3 or len(seen) < len(wanted):
        if rounds < 3:
            wanted += tenant.record(*events(4, user="carol"))
            tenant.record(*events(9), *events(2, timestamp="2026-03-18T12:00:00Z"))
        rounds += 1
        answer = reader.get(
            EVENTS, params={"order": "recorded", "after": after, "limit": limit, "user": "carol"}
        )
        seen += ids(events_of(answer))
        size, before = int(answer.headers["Auditplane-Log-Size"]), after
        after = int(answer.headers["Auditplane-Next-After"])
        assert before <= after < size
        assert ("next" in answer.links) == (after < size - 1)
    assert seen == wanted
    last = events_of(reader.get(EVENTS, params={"order": "recorded", "after": after - 1, "limit": 1}))
    assert len(last) == 1


def test_a_feed_never_goes_back(tenant: Tenant) -> None:
    """Who asks beyond the end of the log goes on from there; other orders have no such header."""
    tenant.record(*events(3))
    for after in (50, (1 << 63) - 1):
        answer = tenant.reader.get(EVENTS, params={"order": "recorded", "after": after, "limit": 5})
        assert (answer.json(), int(answer.headers["Auditplane-Next-After"])) == ([], after)
    for query in ("limit=2", "order=asc&limit=2", "order=recorded"):
        assert "Auditplane-Next-After" not in tenant.reader.get(f"{EVENTS}?{query}").headers


def test_the_log_size_is_that_of_the_answer(tenant: Tenant) -> None:
    tenant.record(*events(5))
    before = int(tenant.reader.get(EVENTS).headers["Auditplane-Log-Size"])
    assert before == len(events_of(tenant.reader.get(EVENTS)))
    tenant.record(*events(10))
    for path in (
        EVENTS,
        DOWNLOAD,
        f"{EVENTS}?limit=3",
        f"{EVENTS}?user=nobody",
        f"{DOWNLOAD}?order=recorded&after=4",
    ):
        for answer in (tenant.reader.get(path), tenant.reader.head(path)):
            assert int(answer.headers["Auditplane-Log-Size"]) == before + 10
    assert tenant.reader.get(EVENTS, params={"order": "recorded", "after": before + 9}).json() == []
    after = events_of(tenant.reader.get(EVENTS, params={"order": "recorded", "after": before + 8}))
    assert len(after) == 1


# Forms.

JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON), ("", JSON), ("*/*", JSON), ("application/*", JSON), (JSON, JSON),
        ("Application/JSON", JSON),
        (NDJSON, NDJSON), ("application/ndjson", NDJSON), (CSV, CSV), ("text/*", CSV),
        ("TEXT/CSV;header=present", CSV),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON), ("text/csv, application/json", JSON),
        ("text/csv;q=0.9, application/json;q=0.8", CSV),
        (f"{NDJSON};q=0.5, text/csv;q=0.4, */*;q=0.1", NDJSON),
        ("application/json;q=0, */*", NDJSON), ("application/json; q=0.1 , text/csv ; q=1.000", CSV),
        ("*/*, application/json;q=0.2, text/csv;q=0.3", NDJSON),
        ("text/*;q=0.9, text/csv;q=0, */*;q=0.1", JSON),
        ("image/png", None), ("application/json;q=0", None), ("text/html", None), ("*/*;q=0", None),
        ("json", None),
    ],
)  # fmt: skip
def test_the_form_is_what_the_caller_accepts(trail: Trail, accept: str | None, expected: str | None) -> None:
    headers = {} if accept is None else {"Accept": accept}
    for query in ({"user": "bob"}, {"user": "bob", "limit": "2"}):
        answer = trail.tenant.reader.get(EVENTS, params=query, headers=headers)
        if expected is None:
            problems_of(answer, 406)
            continue
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].partition(";")[0] == expected
        assert "Accept" in answer.headers["Vary"]
        assert answer.headers["Cache-Control"] == "no-store"


def test_two_accept_headers_are_one_list(trail: Trail) -> None:
    headers = [("Accept", "application/json;q=0.1"), ("Accept", "text/csv")]
    answer = trail.tenant.reader.get(EVENTS, params={"limit": 1}, headers=headers)
    assert answer.headers["Content-Type"].startswith(CSV)


def test_every_form_holds_the_same_events(trail: Trail) -> None:
    reader = trail.tenant.reader
    for query in ({"user": "ZOË"}, {"limit": "700"}, {"user": "nobody"}, {"user": "nobody", "limit": "1"}):
        docs = events_of(reader.get(EVENTS, params=query))
        lines = reader.get(EVENTS, params=query, headers={"Accept": NDJSON}).content
        assert [msgspec.json.decode(line) for line in lines.splitlines()] == docs
        assert lines.endswith(b"\n") or not docs
        rows = from_csv(reader.get(EVENTS, params=query, headers={"Accept": CSV}).content)
        assert [row[0] for row in rows] == ids(docs)


def test_a_key_with_envelope_gets_the_envelope(tenant: Tenant) -> None:
    """By its key alone: nothing else of the answer differs, and other forms have no envelope."""
    tenant.record(*events(30))
    bare, wrapped = tenant.reader, tenant.client(tenant.key("reader", envelope=True)[1])
    for query in (
        {},
        {"limit": "7"},
        {"user": "nobody"},
        {"user": "nobody", "limit": "1"},
        {"order": "recorded"},
    ):
        parameters = {"resource-kind": "Source", **query}
        answer = wrapped.get(EVENTS, params=parameters)
        assert answer.headers["Content-Type"] == JSON
        assert answer.json() == {"auditEvents": bare.get(EVENTS, params=parameters).json()}
    assert wrapped.get(EVENTS, headers={"Accept": NDJSON}).content.startswith(b'{"id":')
    assert wrapped.get(EVENTS, headers={"Accept": CSV}).content.startswith(b"id,")
    (made,) = tenant.record(event())
    assert wrapped.get(f"{EVENTS}/{made}").json()["id"] == made


def test_an_answer_without_events(tenant: Tenant) -> None:
    """`[]`, the header row, an empty text: never null, never an error."""
    nobody = {"user": "nobody"}
    reader = tenant.reader
    assert reader.get(EVENTS, params=nobody).content.strip() == b"[]"
    assert reader.get(EVENTS, params=nobody, headers={"Accept": NDJSON}).content == b""
    assert from_csv(reader.get(EVENTS, params=nobody, headers={"Accept": CSV}).content) == []
    assert from_csv(reader.get(DOWNLOAD, params=nobody).content) == []
    assert reader.get(COUNT, params=nobody).json() == {"count": 0}


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
@pytest.mark.parametrize(
    "path",
    [
        EVENTS,
        DOWNLOAD,
        f"{EVENTS}?limit=2",
        f"{EVENTS}?limit=x",
        f"{DOWNLOAD}?raw=x",
        f"{EVENTS}?user=nobody",
    ],
)
def test_head_answers_as_get_does_without_a_body(trail: Trail, path: str, coding: str) -> None:
    reader = trail.tenant.reader
    got, headed = (
        reader.request(method, path, headers={"Accept-Encoding": coding}) for method in ("GET", "HEAD")
    )
    assert headed.status_code == got.status_code
    assert headed.read() == b""
    changing = {"date", "transfer-encoding", "content-length"}
    assert {name: value for name, value in headed.headers.items() if name not in changing} == {
        name: value for name, value in got.headers.items() if name not in changing
    }
    assert headed.headers.get("content-length") in (None, got.headers.get("content-length"))


def test_one_event_by_its_id(trail: Trail) -> None:
    chosen = random.Random(3)
    for doc in chosen.sample(trail.docs, 50):
        assert trail.tenant.reader.get(f"{EVENTS}/{doc['id']}").json() == doc
    assert trail.tenant.reader.get(f"{EVENTS}/{doc['id'].lower()}").json() == doc
    other = "7" + doc["id"][1:]
    for wrong in (other, "x", doc["id"][:-1], doc["id"] + "0", "01JQ00000000000000000000AU", "countt", "é"):
        problems_of(trail.tenant.reader.get(f"{EVENTS}/{wrong}"), 404)


def test_a_page_ends_early_rather_than_be_huge(tenant: Tenant) -> None:
    """Large events: no page is much larger than 16 MiB, and the next ones follow."""
    made: list[str] = []
    for _ in range(3):
        made += tenant.record(*events(450, description="d" * 4_000, details={"text": "x" * 16_000}))
    answer = tenant.reader.get(
        EVENTS, params={"limit": 10_000, "order": "recorded", "resource-kind": "Source"}
    )
    assert len(answer.content) < 17 * 1024 * 1024
    assert 500 < len(answer.json()) < len(made)
    rest = tenant.reader.get(answer.links["next"]["url"])
    assert "next" not in rest.links
    assert ids([*answer.json(), *rest.json()]) == made
