"""The stock Bindplane receiver: its two requests in a loop, against writers that never pause.

It remembers nothing but the newest timestamp it saw. An event recorded without a timestamp must reach it
exactly once, whatever else is recorded meanwhile and by whichever worker.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote_plus, urlsplit

import httpx2
import msgspec
import pytest

from server import Server, make_key, start
from tenants import EVENTS, client, events, recorded

BATCH_EVENTS = 200
ROUNDS = 5


class AuditEvent(msgspec.Struct):
    """The members that the receiver decodes, all of them texts."""

    id: str
    timestamp: datetime  # RFC 3339, as Go's time.Time reads it
    resourceName: str  # noqa: N815 - the contract's name
    description: str
    resourceKind: str  # noqa: N815 - the contract's name
    action: str
    user: str
    configuration: str = ""
    account: str = ""


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """All that the receiver decodes."""

    auditEvents: list[AuditEvent]  # noqa: N815 - the contract's name


class Receiver:
    """Polls as the receiver does."""

    def __init__(self, server: Server, secret: str) -> None:
        self._client = client(server.url, secret, **{"Accept-Encoding": "gzip"})  # as Go's client asks
        self._newest: datetime | None = None
        self._decode = msgspec.json.Decoder(Envelope).decode
        self.seen: list[str] = []

    def url(self) -> str:
        """The first request has no parameters, later ones the newest timestamp seen plus 1 µs."""
        if self._newest is None:
            return EVENTS
        after = self._newest + timedelta(microseconds=1)
        return f"{EVENTS}?min-date={quote_plus(after.strftime('%Y-%m-%d %H:%M:%S.%f') + '+00')}"

    def poll(self) -> int:
        """Asks once; returns how many events came."""
        answer = self._client.get(self.url())
        assert answer.status_code == 200
        found = self._decode(answer.content).auditEvents
        if found:
            self._newest = max(event.timestamp for event in found)
        self.seen += [event.id for event in found]
        return len(found)

    def follow(self, other: "Receiver") -> None:
        """Goes on where another one was."""
        self._newest, self.seen = other._newest, other.seen

    def close(self) -> None:
        self._client.close()


def test_the_requests_are_those_of_the_receiver() -> None:
    asked = Receiver(Server(Path(), 1, None, Path()), "x")  # type: ignore[arg-type]
    assert asked.url() == "/v1/audit-events"
    asked._newest = datetime(2025, 3, 18, 18, 21, 9, tzinfo=UTC)
    assert asked.url() == "/v1/audit-events?min-date=2025-03-18+18%3A21%3A09.000001%2B00"
    assert parse_qs(urlsplit(asked.url()).query) == {"min-date": ["2025-03-18 18:21:09.000001+00"]}
    asked.close()


def write(writer: httpx2.Client, batches: int) -> list[str]:
    """Records events without timestamps; returns their ids."""
    body = msgspec.json.encode(events(BATCH_EVENTS))
    return [made for _ in range(batches) for made in recorded(writer.post(EVENTS, content=body))]


def write_dated(writer: httpx2.Client, stopping: threading.Event) -> None:
    """Records events with timestamps of long ago, of right now, and of the near future."""
    while not stopping.is_set():
        now = datetime.now(UTC)
        times = [now - timedelta(days=30), now - timedelta(milliseconds=3), now, now + timedelta(seconds=50)]
        given = [{**one, "timestamp": at.isoformat()} for at in times for one in events(5)]
        recorded(writer.post(EVENTS, content=msgspec.json.encode(given)))


@pytest.fixture(params=[("1", 30), ("2", 510)], ids=["one worker", "two workers"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Server, int]]:
    """A server, and how many batches are recorded on it."""
    workers, batches = request.param
    with start(tmp_path / "data", "--workers", workers) as server:
        yield server, batches


def test_the_receiver_misses_nothing_and_sees_nothing_twice(scene: tuple[Server, int]) -> None:
    """Of more than 100,000 events without a timestamp, among others with timestamps, from six writers."""
    server, batches = scene
    receiver = Receiver(server, make_key(server.data, "reader", envelope=True)[1])
    stopping = threading.Event()
    writers = [client(server.url, server.admin_key) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        dated = [pool.submit(write_dated, writer, stopping) for writer in writers[:3]]
        made = []
        for _ in range(ROUNDS):
            plain = [pool.submit(write, writer, batches // 3 // ROUNDS) for writer in writers[3:]]
            receiver.poll()
            while not all(each.done() for each in plain):
                time.sleep(0.02)
                receiver.poll()
            made += [one for each in plain for one in each.result()]
        stopping.set()
        for each in dated:
            each.result()
        receiver.poll()
    receiver.close()
    for writer in writers:
        writer.close()
    assert len(set(made)) == len(made) == batches * BATCH_EVENTS
    assert len(set(receiver.seen)) == len(receiver.seen), "nothing is seen twice"
    assert set(made) <= set(receiver.seen), "nothing is lost"


def test_the_receiver_goes_on_after_a_restart_of_the_server(tmp_path: Path) -> None:
    """Timestamps rise across restarts; a poll without news is an empty envelope."""
    data = tmp_path / "data"
    receiver: Receiver | None = None
    made: list[str] = []
    for _ in range(2):
        with start(data) as server:
            secret = make_key(data, "reader", envelope=True)[1]
            before, receiver = receiver, Receiver(server, secret)
            if before:
                receiver.follow(before)
                assert receiver.poll() == 1, "nothing is new but the key itself"
            with client(server.url, server.admin_key) as writer:
                made += write(writer, 2)
            receiver.poll()
            assert receiver.poll() == 0
            receiver.close()
    assert receiver
    assert sorted(one for one in receiver.seen if one in set(made)) == sorted(made)
