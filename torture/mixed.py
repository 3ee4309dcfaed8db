"""The mixed load of `torture.soak`: people and programs that do all that can be done, each at its own pace.

Each is a thread that does one thing again and again, checks the answers, and writes down what was
acknowledged, how long it took, and what was not as it should be.
"""

import contextlib
import gzip
import http.client
import json
import math
import random
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from auditplane import ulid
from auditplane.zstd import compress
from server import PROGRAM, environment
from torture.journal import Journal

EVENTS: Final = "/v1/audit-events"
IDLE_SECONDS_MAX: Final = 5.0
TIMEOUT_SECONDS: Final = 60.0
COMMAND_SECONDS_MAX: Final = 600.0
BROKEN_OFF_BYTES: Final = 256 * 1024
STALLED_MAX: Final = 3
LISTENED_SECONDS: Final = 40.0
ELSEWHERE: Final = "127.0.0.9"
"""Where wrong keys come from: an address that fails too often may not sign in for a while."""
KEY_HEADER: Final = "X-Bindplane-Api-Key"

ACCOUNTS: Final = ("default", "acme", "globex", "forgetful", "archive")
OLD_ACCOUNTS: Final = tuple(f"old-{number}" for number in range(6))
"""Accounts with events that have expired, or will soon, once they get a retention of a day."""

Json = dict[str, Any]


class Wrong(Exception):
    """An answer was not as it should be."""


@dataclass(frozen=True)
class Place:
    """Where the server is, and the keys of admins by account."""

    data: Path
    port: int
    keys: Mapping[str, str]
    scratch: Path


@dataclass
class Answer:
    """An answer that was read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Client:
    """Somebody who asks the server, on a connection that is kept while it is in use."""

    place: Place
    journal: Journal
    account: str
    chosen: random.Random
    until: float = math.inf
    secret: str | None = None
    cookie: str | None = None
    address: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    _connection: http.client.HTTPConnection | None = None
    _used: float = 0.0

    def ask(
        self,
        what: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        method: str | None = None,
        expected: HTTPStatus = HTTPStatus.OK,
    ) -> Answer:
        """The answer to a request; raises Wrong for another status than the expected one."""
        began = time.monotonic()
        response = self._send(method or ("GET" if body is None else "POST"), path, body, headers or {})
        answer = Answer(response.status, response.headers, response.read())
        if answer.status != expected:
            raise Wrong(f"{what} was answered with {answer.status}: {answer.body[:200]!r}")
        self.journal.took(what, time.monotonic() - began)
        return answer

    def begin(self, path: str) -> http.client.HTTPResponse:
        """An answer of which nothing is read yet, on a connection of its own."""
        self.close()
        return self._send("GET", path, None, {})

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def leave_open(self) -> None:
        """Goes on with another connection; this one is closed with the answer that it carries."""
        self._connection = None

    def _send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        if time.monotonic() > self._used + IDLE_SECONDS_MAX:
            self.close()  # the server may do the same at this moment
        if self._connection is None:
            source = None if self.address is None else (self.address, 0)
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", self.place.port, timeout=TIMEOUT_SECONDS, source_address=source
            )
        own = {"Cookie": self.cookie} if self.cookie else {}
        secret = self.secret or self.place.keys.get(self.account)
        if secret and not self.cookie:
            own[KEY_HEADER] = secret
        self._connection.request(method, path, body, {"Content-Type": "application/json", **own, **headers})
        self._used = time.monotonic()
        return self._connection.getresponse()


Act = Callable[[Client], None]


# Recording.


def _event(chosen: random.Random, **members: Any) -> Json:
    return {
        "resourceName": f"otlp-{chosen.randrange(500)}",
        "resourceKind": chosen.choice(("Source", "Destination", "Configuration")),
        "action": chosen.choice(("Created", "Modified", "Deleted")),
        "user": f"user{chosen.randrange(40)}@example.com",
        "configuration": f"prod-{chosen.randrange(20)}:{chosen.randrange(9)}",
        "details": {"before": chosen.randrange(1 << 30), "request": chosen.randbytes(12).hex()},
        **members,
    }


def _record(
    client: Client,
    what: str,
    events: Sequence[Json],
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> list[str]:
    """Records events, whose ids are written down once they are acknowledged."""
    body = json.dumps(events).encode() if body is None else body
    ids: list[str] = client.ask(what, EVENTS, body, headers, expected=HTTPStatus.CREATED).json()["ids"]
    if len(ids) != len(events):
        raise Wrong(f"{len(events)} events got {len(ids)} ids")
    client.journal.acknowledged(client.account, ids)
    return ids


def record_one(client: Client) -> None:
    """One event, as most programs record."""
    _record(client, "record", [_event(client.chosen)])


def record_batch(client: Client) -> None:
    """A batch as JSON, compressed in one of the ways there are."""
    events = [_event(client.chosen) for _ in range(client.chosen.randrange(20, 80))]
    packed: dict[str, Callable[[bytes], bytes]] = {"": bytes, "gzip": gzip.compress, "zstd": compress}
    encoding = client.chosen.choice(list(packed))
    headers = {"Content-Encoding": encoding} if encoding else {}
    _record(client, "batch", events, packed[encoding](json.dumps(events).encode()), headers)


def record_lines(client: Client) -> None:
    """A batch as NDJSON, half of it from last year."""
    last_year = [{"timestamp": f"2025-0{client.chosen.randrange(1, 10)}-11T00:00:00Z"}, {}]
    events = [_event(client.chosen, **last_year[number % 2]) for number in range(100)]
    lines = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    _record(client, "lines", events, lines, {"Content-Type": "application/x-ndjson"})


def record_again(client: Client) -> None:
    """Events with ids of their own, and the same once more: the second time nothing is stored."""
    ids = [ulid.make(client.chosen.getrandbits(63), client.chosen.randbytes(12)) for _ in range(10)]
    events = [_event(client.chosen, id=each) for each in ids]
    if _record(client, "with ids", events) != ids:
        raise Wrong("given ids were not kept")
    again = client.ask("with ids", EVENTS, json.dumps(events).encode(), expected=HTTPStatus.CREATED)
    if again.json()["ids"] != ids:
        raise Wrong("the same events got other ids")


# Reading.


def _filters(chosen: random.Random) -> str:
    given = {
        "user": f"user{chosen.randrange(40)}@example.com",
        "action": "Modified",
        "resource-kind": "Source",
        "configuration-name": f"prod-{chosen.randrange(20)}",
        "min-date": "20260101",
    }
    names = chosen.sample(list(given), chosen.randrange(3))
    return urlencode({name: given[name] for name in names})


def list_pages(client: Client) -> None:
    """Some pages of a list, by the Link header."""
    path = f"{EVENTS}?limit=100&{_filters(client.chosen)}"
    for _ in range(3):
        answer = client.ask(
            "page", path, headers={"Accept-Encoding": client.chosen.choice(("", "zstd", "gzip"))}
        )
        link = answer.headers["Link"]
        if not link:
            return
        path = link.partition("<")[2].partition(">")[0]


def follow_feed(client: Client) -> None:
    """What was recorded since the last time, of which nothing may be missed."""
    after = client.notes.setdefault("after", -1)
    answer = client.ask("feed", f"{EVENTS}?order=recorded&after={after}&limit=1000")
    client.journal.fed(client.account, [event["id"] for event in answer.json()])
    client.notes["after"] = int(answer.headers["Auditplane-Next-After"])


def download_whole(client: Client) -> None:
    """A whole trail that does not grow, but by the events that tell of this."""
    path = client.chosen.choice((f"{EVENTS}/download", EVENTS))
    encoding = client.chosen.choice(("", "gzip", "zstd"))
    client.ask("download", path, headers={"Accept-Encoding": encoding})


def break_off_download(client: Client) -> None:
    """The beginning of the whole trail, and then the connection is closed."""
    response = client.begin(f"{EVENTS}/download")
    response.read(BROKEN_OFF_BYTES)
    client.close()


def stall_download(client: Client) -> None:
    """The beginning, and then nothing is taken for longer than the server waits."""
    response = client.begin(EVENTS)
    response.read(1024)
    client.leave_open()
    stalled = client.notes.setdefault("stalled", [])
    stalled.append(response)
    if len(stalled) > STALLED_MAX:
        stalled.pop(0).close()


def count(client: Client) -> None:
    """How many events match, sometimes with words."""
    words = client.chosen.choice(("", "&q=otlp-7", "&q=deleted+otlp-12"))
    client.ask("count", f"{EVENTS}/count?{_filters(client.chosen)}{words}")


def prove(client: Client) -> None:
    """One of the newest events with its proof, a checkpoint, and that the log goes on from an earlier one."""
    newest = client.ask("page", f"{EVENTS}?limit=20").json()
    event = client.chosen.choice(newest)
    client.ask("event", f"{EVENTS}/{event['id']}")
    client.ask("proof", f"{EVENTS}/{event['id']}/proof")
    log = f"/v1/log/{client.account}"
    size = int(client.ask("checkpoint", f"{log}/checkpoint").body.split(b"\n")[1])
    client.ask("consistency", f"{log}/consistency?from={client.notes.get('size', 0)}&to={size}")
    client.notes["size"] = size


def take_evidence(client: Client) -> None:
    """A zip that proves the newest events of a user."""
    user = f"user{client.chosen.randrange(40)}@example.com"
    newest = client.ask("page", f"{EVENTS}?limit=1&user={user}").json()
    date = newest[0]["timestamp"] if newest else "20260101"
    client.ask("evidence", f"{EVENTS}/evidence?{urlencode({'user': user, 'min-date': date})}")


def scrape(client: Client) -> None:
    """What a monitoring system asks for."""
    client.ask("health", "/health")
    client.ask("metrics", "/metrics")


# The page.

_PARTS: Final = (
    "/", "/rows?user=user1@example.com", "/overview", "/overview?action=Deleted", "/?q=otlp-7",
    "/suggestions?member=user&text=user1", "/keys", "/keeping", "/storage", "/export",
    "/relax?user=user1@example.com",
)  # fmt: skip


def _sign_in(client: Client) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({"key": client.place.keys[client.account]}).encode()
    answer = client.ask("sign-in", "/sign-in", body, form, expected=HTTPStatus.SEE_OTHER)
    client.cookie = answer.headers["Set-Cookie"].partition(";")[0]


def look_at_page(client: Client) -> None:
    """Signs in, looks around, and signs out again."""
    _sign_in(client)
    try:
        for _ in range(8):
            page = client.ask("page view", client.chosen.choice(_PARTS))
        page = client.ask("page view", "/")
        csrf = re.findall(rb'name="csrf" value="(\w+)"', page.body)[0]
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        client.ask("sign-out", "/sign-out", b"csrf=" + csrf, form, expected=HTTPStatus.SEE_OTHER)
        client.ask("signed out", "/rows", expected=HTTPStatus.SEE_OTHER)
    finally:
        client.cookie = None


def try_wrong_key(client: Client) -> None:
    """A key that never was; after some of them nobody there may try for a while."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with contextlib.suppress(Wrong):
        client.ask("wrong key", "/sign-in", b"key=ap_wrong", form, expected=HTTPStatus.UNAUTHORIZED)
        return
    client.ask("wrong key", "/sign-in", b"key=ap_wrong", form, expected=HTTPStatus.TOO_MANY_REQUESTS)


def listen(client: Client) -> None:
    """A page that shows new events by itself, for a while."""
    _sign_in(client)
    response = client.begin("/live?after=-1")
    if response.status != HTTPStatus.OK:
        raise Wrong(f"live was answered with {response.status}")
    deadline = min(time.monotonic() + LISTENED_SECONDS, client.until)
    seen = 0
    while time.monotonic() < deadline:
        line = response.readline()
        if not line:
            raise Wrong("live ended by itself")
        seen += line.startswith(b"event: ")
    client.close()
    client.cookie = None
    if not seen and deadline < client.until:
        raise Wrong(f"live told of nothing for {LISTENED_SECONDS} s")


# Admins.


def make_and_revoke_key(client: Client) -> None:
    """A key works from when it is made until it is revoked, whichever worker is asked."""
    made = client.ask("make key", "/v1/api-keys", b'{"role": "reader"}', expected=HTTPStatus.CREATED).json()
    user = Client(client.place, client.journal, client.account, client.chosen, secret=made["key"])
    _use_key(user, HTTPStatus.OK)
    path = f"/v1/api-keys/{made['id']}"
    client.ask("revoke key", path, method="DELETE", expected=HTTPStatus.NO_CONTENT)
    _use_key(user, HTTPStatus.UNAUTHORIZED)


def _use_key(user: Client, expected: HTTPStatus) -> None:
    for _ in range(4):  # each on a new connection, which any of the workers may take
        user.ask("new key", f"{EVENTS}/count", expected=expected)
        user.close()


def hold_and_lift(client: Client) -> None:
    """What is on hold can't be erased, and can be once the hold is lifted."""
    user = f"held-{client.chosen.getrandbits(40):x}"
    ids = _record(client, "record", [_event(client.chosen, user=user)])
    hold = json.dumps({"reason": "soak", "user": user}).encode()
    held = client.ask("hold", "/v1/holds", hold, expected=HTTPStatus.CREATED).json()
    erasure = json.dumps({"reason": "soak", "ids": ids}).encode()
    client.ask("erase held", "/v1/erasures", erasure, expected=HTTPStatus.CONFLICT)
    client.ask("lift", f"/v1/holds/{held['id']}", method="DELETE", expected=HTTPStatus.NO_CONTENT)
    _erase(client, {"ids": ids}, ids)


def erase_user(client: Client) -> None:
    """All events of a user go, and those that ask for one are told so."""
    user = f"leaver-{client.chosen.getrandbits(40):x}"
    ids = _record(client, "batch", [_event(client.chosen, user=user) for _ in range(5)])
    _erase(client, {"user": user}, ids)


def _erase(client: Client, what: Json, ids: Sequence[str]) -> None:
    body = json.dumps({"reason": "soak", **what}).encode()
    if client.ask("erase", "/v1/erasures", body).json() != {"erased": len(ids)}:
        raise Wrong("not all was erased")
    client.journal.erased(client.account, ids)
    client.ask("erased", f"{EVENTS}/{ids[0]}", expected=HTTPStatus.GONE)


def set_retention(client: Client) -> None:
    """The next of the old accounts gets a retention of a day, so much of it goes."""
    turn = client.notes.setdefault("turn", 0)
    client.notes["turn"] = turn + 1
    client.account = OLD_ACCOUNTS[turn % len(OLD_ACCOUNTS)]
    before = client.ask("count", f"{EVENTS}/count").json()["count"]
    client.ask("retention", "/v1/retention", b'{"days": 1}', method="PUT")
    after = client.ask("count", f"{EVENTS}/count").json()["count"]
    if turn < len(OLD_ACCOUNTS) and after >= before:
        raise Wrong(f"nothing of {before} events expired")


def back_up(client: Client) -> None:
    """A backup, which checks itself, and a change of the key that signs."""
    target = client.place.scratch / f"backup-{client.chosen.getrandbits(32):x}"
    try:
        _command(client, "backup", str(target))
    finally:
        shutil.rmtree(target, ignore_errors=True)
    _command(client, "log", "rotate", "--reason", "soak")


def _command(client: Client, *args: str) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [PROGRAM, *args, "--data", client.place.data],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    if done.returncode:
        raise Wrong(f"{args[0]} ended with {done.returncode}: {done.stderr}")
    client.journal.took(args[0], time.monotonic() - began)


# Who does what.


@dataclass(frozen=True)
class Actor:
    """What somebody does in an account, and from one beginning to the next how many seconds pass."""

    act: Act
    account: str
    every_seconds: float
    address: str | None = None


RECORDERS: Final = (
    *(Actor(record_one, account, 0.1) for account in ("default", "acme", "globex", "forgetful")),
    Actor(record_batch, "default", 2.0),
    Actor(record_lines, "acme", 3.0),
    Actor(record_again, "globex", 2.0),
)
READERS: Final = (
    Actor(list_pages, "default", 1.0),
    Actor(list_pages, "globex", 1.0),
    Actor(follow_feed, "acme", 1.0),
    Actor(download_whole, "archive", 10.0),
    Actor(break_off_download, "default", 5.0),
    Actor(stall_download, "archive", 45.0),
    Actor(count, "default", 1.5),
    Actor(prove, "acme", 5.0),
    Actor(take_evidence, "globex", 30.0),
    Actor(scrape, "default", 15.0),
)
PEOPLE: Final = (
    Actor(look_at_page, "default", 5.0),
    Actor(look_at_page, "acme", 8.0),
    Actor(try_wrong_key, "default", 12.0, ELSEWHERE),
    *(Actor(listen, account, LISTENED_SECONDS + 2) for account in ("default", "acme", "globex") * 2),
    Actor(make_and_revoke_key, "globex", 15.0),
    Actor(hold_and_lift, "forgetful", 10.0),
    Actor(erase_user, "forgetful", 20.0),
)


def operators(seconds: float) -> Sequence[Actor]:
    """Who does what is seldom done, in a run of so many seconds."""
    return (
        Actor(set_retention, OLD_ACCOUNTS[0], max(5.0, seconds / len(OLD_ACCOUNTS))),
        Actor(back_up, "default", max(30.0, seconds / 6)),
    )


def act(name: str, actors: Sequence[Actor], place: Place, seed: int, seconds: float) -> None:
    """Has them all act for so long; runs in a process of its own."""
    journal = Journal(place.scratch / f"{name}.journal")
    deadline = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_repeat, args=(actor, place, journal, f"{seed} {name} {number}", deadline))
        for number, actor in enumerate(actors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _repeat(actor: Actor, place: Place, journal: Journal, seed: str, deadline: float) -> None:
    chosen = random.Random(seed)
    client = Client(place, journal, actor.account, chosen, deadline, address=actor.address)
    time.sleep(chosen.random() * min(actor.every_seconds, 5.0))
    while (began := time.monotonic()) < deadline:
        with _written_down(client, actor):
            actor.act(client)
        pause = actor.every_seconds * (0.5 + chosen.random()) - (time.monotonic() - began)
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
    client.close()


@contextlib.contextmanager
def _written_down(client: Client, actor: Actor) -> Iterator[None]:
    try:
        yield
    except (
        Wrong,
        OSError,
        http.client.HTTPException,
        ValueError,
        LookupError,
        subprocess.TimeoutExpired,
    ) as error:
        client.journal.problem(f"{actor.act.__name__} in {actor.account}: {type(error).__name__}: {error}")
        client.close()
        client.cookie = None
