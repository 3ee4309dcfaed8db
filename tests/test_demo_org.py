import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from auditplane import limits
from auditplane.demo_org import events
from auditplane.event import KINDS, Rules, parse
from auditplane.times import DAY_US, SECOND_US, parse_rfc3339

UNTIL_US = parse_rfc3339("2026-03-18T14:37:12.345678Z")
MEMBERS = {
    "timestamp",
    "resourceName",
    "description",
    "resourceKind",
    "configuration",
    "action",
    "user",
    "details",
}
Trail = list[dict[str, Any]]


@pytest.fixture(scope="module")
def trail() -> Trail:
    return list(events(until_us=UNTIL_US))


def when(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["timestamp"])


def versions(trail: Trail) -> Iterator[tuple[str, int]]:
    """Configurations and the versions that they were brought to, in the order of the trail."""
    for event in trail:
        if event["resourceKind"] == "Configuration" and event["action"] == "Modified":
            name, _, version = event["configuration"].partition(":")
            yield name, int(version)


def test_equal_arguments_give_equal_events_and_another_seed_others() -> None:
    first = list(events(until_us=UNTIL_US, days=20, count=3_000, seed=11))
    assert first == list(events(until_us=UNTIL_US, days=20, count=3_000, seed=11))
    assert first != list(events(until_us=UNTIL_US, days=20, count=3_000, seed=12))


def test_the_events_do_not_depend_on_the_hash_seed_of_the_process() -> None:
    program = (
        "import json; from auditplane.demo_org import events;"
        f"print(json.dumps(list(events(until_us={UNTIL_US}, days=90, count=4_000))))"
    )
    outputs = set()
    for hash_seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
        outputs.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("until_us", "days", "count"),
    [
        (UNTIL_US, 90, 50_000),
        (UNTIL_US, 1, 500),
        (UNTIL_US, 3, 0),
        (UNTIL_US, 90, 1),
        (UNTIL_US, 7, 20_000),
        (UNTIL_US, 400, 5_000),
        (parse_rfc3339("2026-01-01T00:00:00Z"), 30, 10_000),
        (parse_rfc3339("2028-03-05T03:00:00.000001Z"), 90, 2_000),
    ],
)
def test_count_window_and_order_hold_for_any_arguments(until_us: int, days: int, count: int) -> None:
    """Exactly `count` events, ascending by distinct times, within the window, the last of them recent."""
    times = [parse_rfc3339(event["timestamp"]) for event in events(until_us=until_us, days=days, count=count)]
    assert len(times) == count
    assert times == sorted(set(times))
    if times:
        assert until_us - days * DAY_US <= times[0]
        assert until_us - 5 * 60 * SECOND_US <= times[-1] <= until_us


@pytest.mark.parametrize("seed", range(5))
def test_versions_only_grow_whatever_the_seed(seed: int) -> None:
    """Each change of a configuration brings it to the next version: none skipped, repeated or taken back."""
    latest: dict[str, int] = {}
    for name, version in versions(list(events(until_us=UNTIL_US, days=30, count=20_000, seed=seed))):
        assert version == latest.get(name, version - 1) + 1, name
        latest[name] = version
    assert len(latest) > 50


def test_a_rollout_starts_only_after_it_was_pending_and_resumes_only_when_paused(trail: Trail) -> None:
    before = {"Started": {"Pending"}, "Paused": {"Started"}, "Resumed": {"Paused"}}
    last: dict[str, str] = {}
    for event in trail:
        if event["resourceKind"] == "Rollout":
            rollout, action = event["configuration"], event["action"]
            if rollout in last and action in before:
                assert last[rollout] in before[action], event
            last[rollout] = action
    assert {e["action"] for e in trail if e["resourceKind"] == "Rollout"} == {"Pending", *before}


def test_every_kind_of_the_contract_occurs_and_no_other(trail: Trail) -> None:
    assert {event["resourceKind"] for event in trail} == set(KINDS)


def test_the_server_accepts_every_event(trail: Trail) -> None:
    for start in range(0, len(trail), limits.BATCH_EVENTS_MAX):
        part = trail[start : start + limits.BATCH_EVENTS_MAX]
        assert len(parse(json.dumps(part).encode(), Rules()).events) == len(part)


def test_members_stay_within_their_bounds(trail: Trail) -> None:
    for event in trail:
        assert set(event) <= MEMBERS
        assert 1 <= len(event["action"]) <= 64
        assert 1 <= len(event["resourceName"]) <= 256
        assert 1 <= len(event["user"]) <= 256
        assert 1 <= len(event.get("configuration", "-")) <= 256
        assert 1 <= len(event.get("description", "-")) <= 4096
        assert len(json.dumps(event.get("details", {}))) < 4096


def test_addresses_are_those_reserved_for_documentation(trail: Trail) -> None:
    """Nobody's real address appears, and the thief's network is nobody else's."""
    addresses = Counter(
        event["details"]["sourceAddress"] for event in trail if "requestId" in event.get("details", {})
    )
    assert all(a.startswith(("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8:")) for a in addresses)
    assert 5 < sum(n for address, n in addresses.items() if address.startswith("203.0.113.")) < 50


def test_nights_and_weekends_are_quiet(trail: Trail) -> None:
    hours = Counter(when(event).hour for event in trail)
    assert sum(hours[h] for h in (22, 23, 0, 1, 2)) * 5 < sum(hours[h] for h in (8, 9, 10, 13, 14))
    days = Counter(when(event).weekday() for event in trail)
    assert max(days[5], days[6]) * 5 < min(days[d] for d in range(5))


def test_a_freeze_comes_before_the_busiest_week(trail: Trail) -> None:
    weeks = Counter(when(event).isocalendar()[:2] for event in trail)
    thaw = next(e for e in trail if e.get("description", "").startswith("Release freeze lifted"))
    release, freeze = (when(thaw) - timedelta(weeks=n) for n in (0, 1))
    assert weeks[release.isocalendar()[:2]] == max(weeks.values())
    assert weeks[freeze.isocalendar()[:2]] * 3 < max(weeks.values())


def test_nothing_in_production_is_edited_during_the_freeze_but_what_was_under_way(trail: Trail) -> None:
    lifted = next(when(e) for e in trail if e.get("description", "").startswith("Release freeze lifted"))
    begun = datetime.combine((lifted - timedelta(days=6)).date(), datetime.min.time(), UTC)
    for event in trail:
        if event["resourceKind"] == "Configuration" and begun < when(event) < lifted.replace(second=0):
            assert event["resourceName"].startswith(("staging", "dev", "sandbox")), event


@pytest.mark.parametrize("days_later", range(7))
def test_every_story_is_told_whatever_day_it_is(days_later: int) -> None:
    """The incident is rolled back at three at night, and the theft is of a Sunday night, then looked into."""
    trail = list(events(until_us=UNTIL_US + days_later * DAY_US, count=20_000, seed=days_later))
    told = [(when(e), e.get("description", ""), e) for e in trail]
    rollback = next(t for t, why, _ in told if why.startswith("Roll back") and "INC-2291" in why)
    assert rollback.hour == 3
    theft = next(t for t, _, e in told if e["action"] == "Created" and e["resourceName"] == "backup-sync")
    assert (theft.weekday(), theft.hour) == (6, 2)
    assert min(t for t, why, _ in told if why.startswith("SEC-88")) > theft
    assert sum(why.startswith("MIG-12") for _, why, _ in told) > 40
    assert sum(why == "Owner leaves Northwind" for _, why, _ in told) == 3


def test_a_few_users_make_much_of_the_trail(trail: Trail) -> None:
    users = Counter(event["user"] for event in trail)
    top = users.most_common(len(users) // 10)
    assert sum(n for _, n in top) > 0.3 * len(trail)
    assert len(users) > 45
    assert any(not user.isascii() for user in users)


def test_who_left_does_nothing_any_more(trail: Trail) -> None:
    gone = max(i for i, e in enumerate(trail) if e["resourceKind"] == "User" and e["action"] == "Deleted")
    leaver = trail[gone]["resourceName"]
    assert leaver in {event["user"] for event in trail[:gone]}
    assert leaver not in {event["user"] for event in trail[gone:]}


def test_what_is_deleted_was_not_deleted_before(trail: Trail) -> None:
    """An agent or key that was seen to go is not seen to go again without having come again."""
    gone: set[tuple[str, str]] = set()
    for event in trail:
        thing = event["resourceKind"], event["resourceName"]
        if thing[0] in ("Agent", "APIKey"):
            if event["action"] == "Deleted":
                assert thing not in gone
                gone.add(thing)
            elif event["action"] == "Created":
                gone.discard(thing)
