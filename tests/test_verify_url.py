"""`verify --url`: what an outsider who trusts a key and what he remembers finds, and what he does not miss.

The attacks are real ones: a second server with the same signing key on a folder that was put back, that went
another way, or that was doctored with SQL; and a proxy that alters what a server says.
"""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import rfc6962
from altering import Alter, AlteringProxy, altering_proxy, unaltered
from auditplane import keeping, log, merkle, render, verifying
from auditplane.access import Access
from auditplane.access.key import Role
from auditplane.checkpoint import SignerKey, VerifierKey, open_checkpoint
from auditplane.cli import watching
from auditplane.cli.remembered import Remembered
from auditplane.cli.verifier_keys import verifier_keys
from auditplane.cli.watching import Seen, Watch
from auditplane.client import Client, ConnectionLost
from auditplane.errors import InvalidConfig, ProofError, Refused
from auditplane.event import Rules, parse
from auditplane.forgotten import SYSTEM
from auditplane.signing import log_key, make_log_key
from auditplane.store.sqlite import forgetting, sealing
from auditplane.store.sqlite.database import fetch
from auditplane.tiles import ENTRIES, Frontier, Tile, entry_bundle, tile_path, tiles_of
from auditplane.times import DAY_US
from auditplane.verifying import Reading, Shown
from folders import FreeFolder
from remote import Remote
from server import PROGRAM, Server, start
from tenants import EVENTS, client, events, recorded
from trails import made_folder

ACCOUNT = "default"


def made(path: Path, count: int) -> Path:
    """A folder whose log has a key's event and so many more."""
    made_folder(path)
    make_log_key(path, None)
    add(path, ACCOUNT, count)
    return path


def add(data: Path, account: str, count: int, *, by: str = "tests", **members: Any) -> None:
    """Records events without a server."""
    folder = FreeFolder(data)
    try:
        with folder.account(account) as store:
            for first in range(0, count, 5_000):
                given = events(min(5_000, count - first), **members)
                batch = parse(json.dumps(given).encode(), Rules(account))
                (result,) = log.record(store, [log.Request(batch, by)], log.clock)
                if isinstance(result, Exception):
                    raise result
    finally:
        folder.close()


def seal(data: Path, account: str) -> None:
    """Brings what was recorded from the tail into blocks."""
    folder = FreeFolder(data)
    with folder.account(account) as store:
        while sealing.seal(store, everything=True):
            pass
        sealing.settle(store)
    folder.close()


def size_of(data: Path) -> int:
    """How many entries the log has."""
    folder = FreeFolder(data)
    with folder.account(ACCOUNT) as store:
        size = store.size()
    folder.close()
    return size


def secret_of(data: Path, account: str, role: str = "reader") -> str:
    """A new key, which is an event of its account."""
    folder = FreeFolder(data)
    access = Access(folder, log.clock)
    _, secret = access.create(account=account, role=Role(role), by="tests")
    access.close()
    folder.close()
    return secret


def signer(data: Path, account: str = ACCOUNT) -> SignerKey:
    return log_key(data, None, None).for_account(account)


def doctor(data: Path, sql: str, *values: Any, account: str = ACCOUNT) -> None:
    """Changes a log behind the back of the program."""
    connection = apsw.Connection(str(data / "accounts" / f"{account}.db"))
    connection.execute(sql, values)
    assert connection.changes() == 1
    connection.close()


class Outsider:
    """Who has a verifier key, a folder for what he remembers, and perhaps an API key."""

    def __init__(self, key: VerifierKey, state: Path, secret: str) -> None:
        self.key, self.state, self.secret = key, state, secret

    def look(self, url: str, report: watching.Report | None = None) -> Seen:
        """Verifies in this process."""
        with Client(url, self.secret) as asked:
            return Watch(asked, [self.key], Remembered(str(self.state))).look(report or (lambda *_: None))

    def remote(self, url: str) -> Remote:
        """The command line."""
        return Remote(url, self.secret)

    def args(self, url: str) -> list[str]:
        return ["verify", "--url", url, "--key", str(self.key), "--state", str(self.state)]


def outsider(data: Path, state: Path, account: str = ACCOUNT, *, secret: str | None = None) -> Outsider:
    if secret is None:
        secret = (data / "admin.key").read_text().strip()
    return Outsider(signer(data, account).verifier, state, secret)


# What fits.

SIZES = [1, 2, 255, 256, 257, 511, 512, 513, 3_000, 65_537]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[int, str]]]:
    """A server with logs of several sizes, which are public, and keys that may read them."""
    data = made_folder(tmp_path_factory.mktemp("public") / "data")
    secrets = {}
    for size in SIZES:
        secrets[size] = secret_of(data, f"s{size}")
        add(data, f"s{size}", size - 1)
        if size % 3 == 0:
            seal(data, f"s{size}")
    FreeFolder(data).account("s0").__enter__()
    with start(data, env={"AUDITPLANE_LOG_PUBLIC": "true"}) as server:
        yield server, secrets


@pytest.mark.parametrize("size", SIZES)
def test_logs_of_all_sizes_fit(logs: tuple[Server, dict[int, str]], tmp_path: Path, size: int) -> None:
    """Every entry with its event; a second look finds nothing to read."""
    server, secrets = logs
    someone = outsider(server.data, tmp_path, f"s{size}", secret=secrets[size])
    seen = someone.look(server.url)
    assert (seen.checkpoint.size, seen.before, seen.start, seen.gone) == (size, None, 0, 0)
    assert seen.texts
    again = someone.look(server.url)
    assert (again.before, again.start, again.texts) == (seen.checkpoint, size, True)


@pytest.mark.parametrize("size", [0, 257])
def test_a_public_log_is_verified_without_an_api_key(
    logs: tuple[Server, dict[int, str]], tmp_path: Path, size: int
) -> None:
    """And it is said that texts were not; a key that may read catches up on all of them."""
    server, secrets = logs
    nobody = outsider(server.data, tmp_path, f"s{size}", secret="")
    told = nobody.remote(server.url).output(*nobody.args(server.url))
    assert f"{size} entries, signed" in told
    assert "NOT checked" in told
    again = nobody.look(server.url)
    assert (again.start, again.texts) == (size, False)
    if size:
        seen = outsider(server.data, tmp_path, f"s{size}", secret=secrets[size]).look(server.url)
        assert (seen.start, seen.texts) == (0, True)
        assert nobody.look(server.url).texts


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder whose log has a key's event and 600 more."""
    return made(tmp_path / "data", 600)


def test_what_was_read_is_not_read_again(data: Path, tmp_path: Path) -> None:
    """While the log grows, only what is new is asked for, from the last full tile on."""
    someone = outsider(data, tmp_path / "state")
    with start(data) as server, altering_proxy(server.url) as proxy:
        first = someone.look(proxy.url)
        for count in (1, 0, 300):
            if count:
                post(server, someone.secret, count)
            proxy.asked.clear()
            seen = grown(lambda: someone.look(proxy.url), first.checkpoint.size + count)
            assert seen.before == first.checkpoint
            before = first.checkpoint.size // 256
            read = {path for path in proxy.asked if "/tile/entries/" in path}
            assert read == {
                f"/v1/log/default/{tile_path(*tile._replace(level=ENTRIES))}"
                for tile in tiles_of(seen.checkpoint.size)
                if tile.level == 0 and tile.n >= before and count
            }
            first = seen


def grown(look: Callable[[], Seen], size: int) -> Seen:
    """What is seen once a checkpoint has this size, which may take a second; nothing was new before."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        seen = look()
        if seen.checkpoint.size >= size:
            assert seen.checkpoint.size == size
            return seen
        time.sleep(0.1)
    raise AssertionError(size)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, AlteringProxy]]:
    """A log of more than two tiles, in which nothing is recorded, behind a proxy that alters nothing."""
    data = made(tmp_path_factory.mktemp("proxied") / "data", 600)
    with start(data) as server, altering_proxy(server.url) as proxy:
        yield data, proxy


@contextlib.contextmanager
def altering(proxy: AlteringProxy, alter: Alter) -> Iterator[None]:
    """While this is open the proxy alters answers."""
    proxy.alter = alter
    try:
        yield
    finally:
        proxy.alter = unaltered


def test_a_lost_connection_is_gone_on_with(proxied: tuple[Path, AlteringProxy], tmp_path: Path) -> None:
    """What was read is kept, without a checkpoint that says it is proved; the root decides in the end."""
    data, proxy = proxied
    someone = outsider(data, tmp_path)

    def broken(path: str, body: bytes) -> bytes:
        if "/tile/0/001" in path:
            raise OSError
        return body

    with altering(proxy, broken), pytest.raises(ConnectionLost):
        someone.look(proxy.url)
    assert not list(tmp_path.glob("*.checkpoint"))
    seen = someone.look(proxy.url)
    assert (seen.before, seen.start, seen.checkpoint.size) == (None, 256, 601)


def test_what_was_read_below_another_root_is_forgotten(
    proxied: tuple[Path, AlteringProxy], tmp_path: Path
) -> None:
    """A run that was lost had read forged entries: the next finds that, the one after it begins anew."""
    data, proxy = proxied
    someone = outsider(data, tmp_path)
    doc, its_stamp = b"{}", stamp("2020-01-01T00:00:00.000000Z")
    entries = merkle.entry(doc, its_stamp) * 256
    lines = render.entry_lines((index, doc, its_stamp) for index in range(256))

    def forged(path: str, body: bytes) -> bytes:
        if "from=0" in path:
            return lines
        if "/tile/entries/000" in path:
            return entry_bundle(entries)
        if "/tile/0/000" in path:
            return merkle.leaf_hashes(entries)
        if "/tile/entries/001" in path:
            raise OSError
        return body

    with altering(proxy, forged), pytest.raises(ConnectionLost):
        someone.look(proxy.url)
    with pytest.raises(ProofError, match=r"tile/1/000\.p/2 has other hashes"):
        someone.look(proxy.url)
    assert someone.look(proxy.url).start == 0


def test_one_that_is_interrupted_is_gone_on_with(
    proxied: tuple[Path, AlteringProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends it between two tiles."""
    data, proxy = proxied
    someone = outsider(data, tmp_path)
    monkeypatch.setattr(watching, "SAVE_SECONDS", 0.0)

    def interrupt(_done: int, _events: int) -> None:
        if list(tmp_path.glob("*.progress")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        someone.look(proxy.url, interrupt)
    assert someone.look(proxy.url).start == 256


def test_what_goes_while_it_is_read_is_explained_later(data: Path, tmp_path: Path) -> None:
    """By an event beyond the checkpoint that was asked for first."""
    someone = outsider(data, tmp_path / "state")
    with start(data) as server, altering_proxy(server.url) as proxy:

        def erased(path: str, body: bytes) -> bytes:
            if "events?from=0" not in path or path.endswith("to=0"):
                return body
            add(data, ACCOUNT, 1, by=SYSTEM, **ERASURE)
            return b"".join(
                line for line in body.splitlines(keepends=True) if not line.startswith(b'{"index":3,')
            )

        with altering(proxy, erased):
            seen = someone.look(proxy.url)
        assert (seen.gone, seen.checkpoint.size) == (1, 602)


# The command.


def test_what_expired_is_told_of_when_it_is_purged(data: Path, tmp_path: Path) -> None:
    """In between it is the word of the server, which the next look checks."""
    add(data, ACCOUNT, 300)
    ahead = log.clock() + 40 * DAY_US
    folder = FreeFolder(data)
    with (
        start(data) as server,
        Client(server.url, server.admin_key) as api,
        folder.account(ACCOUNT) as store,
    ):
        watch = Watch(api, [signer(data).verifier], Remembered(str(tmp_path / "state")))
        account = keeping.Account(ACCOUNT, store, lambda: ahead)
        keeping.expire(account, 30)
        while forgetting.is_waiting(store):  # the server purges at once, and not again soon
            time.sleep(0.05)
        time.sleep(1.1)
        seen = watch.look(lambda *_: None)
        assert seen.gone > 300
        assert seen.untold == 0
        add(data, ACCOUNT, 600)
        size = store.size()
        keeping.expire(account, 30)
        add(data, ACCOUNT, 10)
        time.sleep(1.1)
        before = watch.look(lambda *_: None)
        assert before.untold == size - seen.checkpoint.size
        assert before.shown == count_shown(api, before)
        while keeping.purge(account, may_begin=True):
            pass
        time.sleep(1.1)
        seen = watch.look(lambda *_: None)
        assert seen.untold == 0
        # Some of what it tells of lies before what was read this time.
        assert seen.gone > seen.checkpoint.size - seen.start
        assert seen.shown == count_shown(api, seen)
        with store.maintenance() as connection:  # one more, which nothing tells of and which is not old
            fetch(connection, "DELETE FROM tail WHERE idx = (SELECT max(idx) - 3 FROM tail)")
        again = Watch(api, [signer(data).verifier], Remembered(str(tmp_path / "other")))
        with pytest.raises(ProofError, match="the log does not say why"):
            again.look(lambda *_: None)
    folder.close()


def count_shown(api: Client, seen: Seen) -> int:
    """How many events are served of those that a look read."""
    return len(list(api.entry_lines(ACCOUNT, seen.start, seen.checkpoint.size)))


def test_the_command_says_what_was_proved(data: Path, tmp_path: Path) -> None:
    """The key may be in a file; a reader key does; a writer may see commitments only."""
    someone = outsider(data, tmp_path / "state", secret=secret_of(data, ACCOUNT))
    writer = outsider(data, tmp_path / "writer", secret=secret_of(data, ACCOUNT, "writer"))
    file = tmp_path / "log.vkey"
    file.write_text(f"{someone.key}\n")
    size = size_of(data)
    with start(data) as server:
        args = ["verify", "--url", server.url, "--key", str(file), "--state", str(someone.state)]
        told = someone.remote(server.url).output(*args)
        assert f"{someone.key.name}: {size} entries, signed by its key." in told
        assert "Nothing was remembered" in told
        assert f"{size} events are shown" in told
        assert "nothing was added" in someone.remote(server.url).output(*args)
        assert "NOT checked" in writer.remote(server.url).output(*writer.args(server.url))
        assert "--key" in someone.remote(server.url).failure("verify", "--url", server.url, status=2)
        nobody = outsider(data, tmp_path / "nobody", secret="")
        assert "key" in nobody.remote(server.url).failure(*nobody.args(server.url))


class Following:
    """`verify --follow` as a process."""

    def __init__(self, someone: Outsider, url: str, errors: Path) -> None:
        env = someone.remote(url).env()
        self._errors = errors
        with errors.open("wb") as file:
            self.process = subprocess.Popen(
                [PROGRAM, *someone.args(url), "--follow"], env=env, stdout=subprocess.PIPE, stderr=file
            )

    def line(self, text: str) -> str:
        """The next line that has a text in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line.decode():
                return line.decode()
        raise AssertionError(self.errors)

    def wait_for(self, text: str) -> None:
        """Returns once it has complained so."""
        deadline = time.monotonic() + 20
        while text not in self.errors and time.monotonic() < deadline:
            time.sleep(0.05)
        assert text in self.errors

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def __enter__(self) -> "Following":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_follow_outlives_a_restart_and_shouts_at_a_fork(data: Path, tmp_path: Path) -> None:
    """One line for each growth; a lost server is told of; an older folder put back ends it with 1."""
    someone = outsider(data, tmp_path / "state")
    older = tmp_path / "older"
    shutil.copytree(data, older)
    with start(data) as server, Following(someone, server.url, tmp_path / "errors") as following:
        following.line("Remembered for the next time")
        post(server, someone.secret, 5)
        assert "5 new: all fit" in following.line("new")
        server.stop()
        following.wait_for("Trying again")
        with start(data, port=server.port) as again:
            post(again, someone.secret, 2)
            assert "2 new: all fit" in following.line("new")
        assert "answers again" in following.errors
        with start(older, port=server.port):
            assert following.process.wait(30) == 1
        assert "SHRUNK" in following.errors


def test_follow_ends_when_it_is_interrupted(proxied: tuple[Path, AlteringProxy], tmp_path: Path) -> None:
    """By Ctrl-C, with the exit code of all commands, and without a traceback."""
    data, proxy = proxied
    someone = outsider(data, tmp_path / "state")
    with Following(someone, proxy.url, tmp_path / "errors") as following:
        following.line("Remembered for the next time")
        following.process.send_signal(signal.SIGINT)
        assert following.process.wait(10) == 130
        assert "Traceback" not in following.errors


def wait_for_checkpoint() -> None:
    """Until a server signs a new one of a log that has grown."""
    time.sleep(log.CHECKPOINT_US / 1_000_000 + 0.05)


def post(server: Server, secret: str, count: int) -> None:
    with client(server.url, secret) as asked:
        recorded(asked.post(EVENTS, json=events(count)))


# Attacks by who has the signing key.


def test_an_older_folder_that_was_put_back_is_noticed(data: Path, tmp_path: Path) -> None:
    """Smaller than before it has shrunk; grown beyond again it has forked. Both notes are kept."""
    someone = outsider(data, tmp_path / "state")
    older = tmp_path / "older"
    shutil.copytree(data, older)
    add(data, ACCOUNT, 700)
    with start(data) as server:
        someone.look(server.url)
    size = size_of(data)
    shrunk = f"SHRUNK from {size:,} to {size - 700:,} entries"
    with start(older) as server, pytest.raises(ProofError, match=shrunk):
        someone.look(server.url)
    add(older, ACCOUNT, 900)
    wait_for_checkpoint()
    with start(older) as server:
        told = someone.remote(server.url).failure(*someone.args(server.url))
    assert "FORKED" in told
    assert_evidence(someone, told, size, size + 200)


def test_two_logs_of_the_same_size_are_noticed(data: Path, tmp_path: Path) -> None:
    """The same key, the same size, other events at the end."""
    someone = outsider(data, tmp_path / "state")
    other = tmp_path / "other"
    shutil.copytree(data, other)
    add(data, ACCOUNT, 1)
    add(other, ACCOUNT, 1)
    with start(data) as server:
        someone.look(server.url)
    with start(other) as server:
        found = [forked(someone, server) for _ in range(2)]
    assert found[0] == found[1]
    assert_evidence(someone, found[0], size_of(data), size_of(data))
    assert len(list(someone.state.glob("*.fork-*"))) == 2


def forked(someone: Outsider, server: Server) -> str:
    """What is said of a fork."""
    with pytest.raises(ProofError, match="FORKED") as caught:
        someone.look(server.url)
    return str(caught.value)


def assert_evidence(someone: Outsider, told: str, remembered: int, served: int) -> None:
    """Two notes that the key signed, where the command said."""
    sizes = []
    for kind in ("remembered", "served"):
        paths = [Path(word.rstrip(".,")) for word in told.split() if word.rstrip(".,").endswith(f".{kind}")]
        (path,) = paths
        sizes.append(open_checkpoint(path.read_bytes(), someone.key.name, [someone.key]).size)
    assert sizes == [remembered, served]


ERASURE = {
    "resourceKind": "AuditTrail",
    "action": "Deleted",
    "details": {"erased": [3, 4], "purgedBefore": 2},
}
DELETE = "DELETE FROM tail WHERE idx = ?"
DOCTORED: dict[str, tuple[str | None, list[tuple[str, int]], str | None]] = {
    "doc": (
        None,
        [("UPDATE tail SET doc = CAST(replace(doc, 'Modified', 'Created') AS BLOB) WHERE idx = ?", 300)],
        r"event of index 300 \(id [0-9A-Z]{26}\) is not the one that was recorded",
    ),
    "stamp": (
        None,
        [("UPDATE tail SET stamp = CAST(replace(stamp, '\"20', '\"19') AS BLOB) WHERE idx = ?", 42)],
        r"event of index 42 \(id [0-9A-Z]{26}\) is not the one that was recorded",
    ),
    "deleted": (None, [(DELETE, 17), (DELETE, 600)], r"the log does not say why.* 17, 600\.$"),
    "erased": (SYSTEM, [(DELETE, 1), (DELETE, 3), (DELETE, 4)], None),
    "more": (SYSTEM, [(DELETE, 1), (DELETE, 2), (DELETE, 4)], r"the log does not say why.* 2\.$"),
    "claimed": ("tests", [(DELETE, 1), (DELETE, 3)], r"the log does not say why.* 1, 3\.$"),
}
"""What was done to logs: who records an erasure at the end, what is changed behind it, what is found."""


@pytest.fixture(scope="module")
def doctored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server with logs of 601 events that were changed by SQL, and keys that may read them."""
    data = made_folder(tmp_path_factory.mktemp("doctored") / "data")
    secrets = {}
    for account, (by, changes, _) in DOCTORED.items():
        secrets[account] = secret_of(data, account)
        add(data, account, 600)
        if by is not None:
            add(data, account, 1, by=by, **ERASURE)
        for sql, index in changes:
            doctor(data, sql, index, account=account)
    with start(data) as server:
        yield server, secrets


@pytest.mark.parametrize("account", DOCTORED)
def test_what_was_done_to_a_log_is_named(
    doctored: tuple[Server, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: str
) -> None:
    """Altered events and missing ones, by their indexes; but for those that the server says it erased."""
    server, secrets = doctored
    found = DOCTORED[account][2]
    someone = outsider(server.data, tmp_path / "state", account, secret=secrets[account])
    if found is None:
        told = someone.remote(server.url).output(*someone.args(server.url))
        assert "599 events are shown" in told
        assert "3 are gone, and the log says why" in told
        return
    monkeypatch.setattr(watching, "LATER_SECONDS", 0.0)
    with pytest.raises(ProofError, match=found):
        someone.look(server.url)
    assert not list(someone.state.glob("*.checkpoint"))
    if account == "doc":
        assert re.search(found, someone.remote(server.url).failure(*someone.args(server.url)))


# A server, or somebody between, that says something else.


def flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


def swapped(body: bytes) -> bytes:
    first, second, *rest = body.split(b"\n")
    return b"\n".join([second, first, *rest])


def renumbered(body: bytes) -> bytes:
    return body.replace(b'{"index":7,', b'{"index":8,')


ATTACKS: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("/tile/0/000", flipped, "tile/0/000 has other hashes"),
    ("/tile/0/002.p/", flipped, "tile/0/002.p/89 has other hashes"),
    ("/tile/1/", flipped, "tile/1/000.p/2 has other hashes"),
    ("/tile/entries/001", flipped, "event of index 511"),
    ("/tile/entries/", lambda body: body[:-1], "tile/entries/000: The bundle is not 256 entries"),
    ("/tile/entries/", lambda body: b"\0\x21" + body[2:], "tile/entries/000: The bundle is not"),
    ("/events?from=0", swapped, "index 0 is shown where 2 is due"),
    ("/events?from=0", renumbered, "index 8 is shown where 9 is due"),
    (
        "/events?from=0",
        lambda body: body.splitlines(keepends=True)[0] * 999,
        "index 0 is shown where 1 is due",
    ),
    ("/events?from=0", lambda body: body + body.splitlines(keepends=True)[-1], "beyond what was asked for"),
    ("/events?from=0", lambda body: body.replace(b'"stamp"', b'"stomp"'), "not shown as index, event"),
    ("/events?", lambda _: b"", "say why; they were recorded at 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 591"),
    ("/events?from=0", lambda body: b"x\n" * 9 + body, "not shown as index, event"),
    ("/checkpoint", lambda body: body.replace(b"601\n", b"602\n"), "signature"),
    ("/checkpoint", lambda _: b"nonsense\n", "signed by the given key"),
]


@pytest.mark.parametrize(("path", "alter", "told"), ATTACKS)
def test_what_was_altered_on_the_way_is_noticed(
    proxied: tuple[Path, AlteringProxy],
    tmp_path: Path,
    path: str,
    alter: Callable[[bytes], bytes],
    told: str,
) -> None:
    """And nothing is remembered of it: from the honest server all fits afterwards."""
    data, proxy = proxied
    someone = outsider(data, tmp_path / "state")
    with (
        altering(proxy, lambda asked, body: alter(body) if path in asked else body),
        pytest.raises(ProofError) as caught,
    ):
        someone.look(proxy.url)
    assert told in str(caught.value)
    assert not list(tmp_path.glob("state/*"))
    assert someone.look(proxy.url).start == 0


def test_a_whole_log_made_anew_below_the_checkpoint_is_noticed(
    proxied: tuple[Path, AlteringProxy], tmp_path: Path
) -> None:
    """Events, entries and tiles that fit each other, and not the signed root."""
    data, proxy = proxied
    forged = made(tmp_path / "forged", 600)
    someone = outsider(data, tmp_path / "state")
    with start(forged) as forger:
        key = (forged / "admin.key").read_text().strip()

        def answer(path: str, body: bytes) -> bytes:
            if path.endswith("/checkpoint"):
                return body
            with client(forger.url, key) as asked:
                return asked.get(path).content

        with altering(proxy, answer), pytest.raises(ProofError, match="do not lead to the root"):
            someone.look(proxy.url)


def test_a_forged_path_between_checkpoints_is_a_fork(data: Path, tmp_path: Path) -> None:
    """Whether it leads to other roots, is too short, or holds no hashes; the true one is taken."""
    someone = outsider(data, tmp_path / "state")
    with start(data) as server, altering_proxy(server.url) as proxy:
        size = someone.look(server.url).checkpoint.size
        post(server, someone.secret, 3)
        wait_for_checkpoint()
        for path in (b'"path":[]', b'"path":["' + b"A" * 43 + b'="]', b'"path":["AAAA"]'):
            forged = partial(re.sub, rb'"path":\[.*\]', path)
            with (
                altering(proxy, lambda asked, body, to=forged: to(body) if "consis" in asked else body),  # type: ignore[misc]
                pytest.raises(ProofError, match="FORKED"),
            ):
                someone.look(proxy.url)
        assert someone.look(proxy.url).checkpoint.size == size + 3


def test_where_the_path_is_refused_both_checkpoints_are_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not prove its growth must not get off without evidence."""
    someone = outsider(data, tmp_path / "state")

    def refuse(*_: object) -> None:
        raise Refused(404, "There is nothing here.")

    with start(data) as server:
        someone.look(server.url)
        post(server, someone.secret, 3)
        wait_for_checkpoint()
        monkeypatch.setattr(Client, "consistency", refuse)
        with pytest.raises(ProofError, match=r"does not prove.*nothing here\. Both signed checkpoints"):
            someone.look(server.url)
    assert len(list(tmp_path.glob("state/*.fork-*"))) == 2


# Keys and what is remembered.


def test_another_key_is_said_clearly(data: Path, tmp_path: Path) -> None:
    """A key of the same name that did not sign; then one after the other, both in a file."""
    someone = outsider(data, tmp_path / "state")
    with start(data) as server:
        someone.look(server.url)
    old = signer(data)
    path = data / "log.key"
    new = SignerKey(old.name.rpartition("/")[0], bytes(32))
    path.write_text(f"{new.secret}\n")
    changed = outsider(data, someone.state)
    both = tmp_path / "both.vkey"
    both.write_text(f"{someone.key}\n{changed.key}\n")
    with start(data) as server:
        remote = someone.remote(server.url)
        assert "the key was changed, check that, and give the new one" in remote.failure(
            *someone.args(server.url)
        )
        told = remote.failure(*changed.args(server.url))
        assert str(someone.state) in told
        assert "both keys" in told
        args = ["verify", "--url", server.url, "--key", str(both), "--state", str(someone.state)]
        assert "It is the log" in remote.output(*args)


@pytest.mark.parametrize("damage", [b"", b"{}", b"nonsense", b"\xff\x00", b'{"sha256":"","reading":{}}'])
def test_a_damaged_state_is_named(proxied: tuple[Path, AlteringProxy], tmp_path: Path, damage: bytes) -> None:
    """Which file, and what to do."""
    data, proxy = proxied
    someone = outsider(data, tmp_path / "state")
    someone.look(proxy.url)
    for path in someone.state.iterdir():
        whole = path.read_bytes()
        path.write_bytes(damage)
        with pytest.raises((ProofError, InvalidConfig), match=re.escape(str(path))):
            someone.look(proxy.url)
        path.write_bytes(whole)
    (progress,) = someone.state.glob("*.progress")
    progress.write_bytes(progress.read_bytes().replace(b'"size":512', b'"size":256'))
    with pytest.raises(InvalidConfig, match="damaged"):
        someone.look(proxy.url)


def test_keys_are_given_as_texts_or_in_files(tmp_path: Path) -> None:
    """One or several of one log; anything else is refused before a server is asked."""
    first, second = (SignerKey("auditplane/x/default", bytes([n]) * 32).verifier for n in (1, 2))
    other = SignerKey("auditplane/y/default", bytes(32)).verifier
    assert verifier_keys(str(first)) == [first]
    file = tmp_path / "log.vkey"
    for text, keys in ((f"{first}\n", [first]), (f"\n{first}\n{second}", [first, second])):
        file.write_text(text)
        assert verifier_keys(str(file)) == keys
    for wrong in ("", "\n", f"{first}\n{other}\n", "nonsense\n", f"{first}x\n"):
        file.write_text(wrong)
        with pytest.raises(InvalidConfig, match="--key"):
            verifier_keys(str(file))
    file.write_bytes(b"\xff")
    for no_key in (
        None,
        "",
        "x",
        "--data",
        "a/b+c+d",
        str(tmp_path),
        str(tmp_path / "none"),
        str(file),
        "\0",
    ):
        with pytest.raises(InvalidConfig, match="--key"):
            verifier_keys(no_key)


# The core.


@given(st.lists(st.integers(0, 700), max_size=6))
@example([256, 255, 1])
@example([65_536, 1])
def test_a_frontier_has_the_root_of_what_was_appended(counts: list[int]) -> None:
    """However it was cut into pieces, and kept and taken up between them; full tiles are given once."""
    leaves = LEAVES[: 32 * sum(counts)]
    tree = rfc6962.Tree(ENTRIES_MADE[: sum(counts)])
    frontier = Frontier()
    full: list[Tile] = []
    for count in counts:
        start_ = frontier.size * 32
        for tile, hashes in frontier.append(leaves[start_ : start_ + 32 * count]):
            full.append(tile)
            assert hashes == hashes_of(tree, tile)
        frontier = Frontier(frontier.size, frontier.edge)
        assert frontier.root() == merkle.root(frontier.size, tree.node)
    unfilled = list(frontier.tiles())
    assert all(hashes == hashes_of(tree, tile) for tile, hashes in unfilled)
    assert sorted([*full, *(tile for tile, _ in unfilled)]) == sorted(tiles_of(frontier.size))


ENTRIES_MADE = [sha256(b"%d" % number).digest() for number in range(66_000)]
LEAVES = merkle.leaf_hashes(b"".join(ENTRIES_MADE))


def hashes_of(tree: rfc6962.Tree, tile: Tile) -> bytes:
    return b"".join(tree.node(8 * tile.level, tile.n * 256 + at) for at in range(tile.width))


@pytest.mark.parametrize(("size", "edge"), [(-1, []), (1, []), (0, [b""]), (1, [b"x" * 31]), (256, [b""])])
def test_a_frontier_of_other_widths_is_refused(size: int, edge: list[bytes]) -> None:
    with pytest.raises(ProofError):
        Frontier(size, edge)


@given(
    st.binary(max_size=200)
    | st.builds(lambda a, b: b'{"index":%d,"event":%b}' % (a, b), st.integers(0), st.binary())
)
def test_a_line_is_read_or_refused(line: bytes) -> None:
    """Never any other error; and one that the server writes comes back byte for byte."""
    with contextlib.suppress(ProofError):
        shown = verifying.parse_entry_line(line)
        assert (
            render.entry_lines([(shown.index, shown.doc, shown.stamp)])
            .rstrip(b"\n")
            .endswith(shown.stamp + b"}")
        )


@pytest.mark.parametrize("digits", ["", "-1", "1.5", "x", "9" * 19, "9" * 5_000])
def test_an_index_is_a_number_that_a_log_can_have(digits: str) -> None:
    with pytest.raises(ProofError):
        verifying.parse_entry_line(b'{"index":%b,"event":{},"stamp":{}}' % digits.encode())


def stamp(at: str, by: str = "k") -> bytes:
    return b'{"at":"%b","by":"%b","salt":"AA=="}' % (at.encode(), by.encode())


@pytest.mark.parametrize(
    ("doc", "stamps", "told"),
    [
        (b"{}", [stamp("2026-01-02T00:00:00.000000Z"), stamp("2026-01-01T00:00:00.000000Z")], "index 1 was"),
        (b"{}", [b"{}"], "none that a server records"),
        (b"{}", [stamp("2026-13-01T00:00:00.000000Z")], "none that a server records"),
        (
            b'{"resourceKind":"AuditTrail","action":"Deleted","details":{',
            [stamp("2026-01-01T00:00:00.000000Z", SYSTEM)],
            "none that a server records",
        ),
    ],
)
def test_events_that_fit_their_entries_and_are_none(doc: bytes, stamps: list[bytes], told: str) -> None:
    """Whoever signs may commit to anything; what contradicts itself is named."""
    entries = b"".join(merkle.entry(doc, each) for each in stamps)
    shown = [Shown(index, doc, each) for index, each in enumerate(stamps)]
    with pytest.raises(ProofError, match=told):
        Reading().take(entries, shown)


def test_a_reading_comes_back_as_it_was_kept() -> None:
    """With what is gone, and the time that none may fall behind."""
    reading = Reading()
    doc, entry_stamp = b"{}", stamp("2026-01-01T00:00:00.000000Z")
    reading.take(merkle.entry(doc, entry_stamp) * 300, [Shown(5, doc, entry_stamp)])
    at_last = (
        b'{"resourceKind":"AuditTrail","action":"Deleted","details":{"erased":[%d,-1],"purgedBefore":-1}}'
    )
    told, by_system = at_last % 2**70, stamp("2026-01-01T00:00:00.000000Z", SYSTEM)
    full_doc = b'{"id":"x","timestamp":"x","resourceName":"x","user":"x",' + told[1:]
    reading.take(merkle.entry(full_doc, by_system), [Shown(300, full_doc, by_system)])
    again = verifying.decode_reading(reading.encode())
    assert again.encode() == reading.encode()
    assert (again.size, again.gone, again.frontier.root()) == (301, 299, reading.frontier.root())
    assert list(again.unexplained()) == [index for index in range(300) if index != 5]
