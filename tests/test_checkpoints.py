"""How long events wait for a checkpoint that covers them, and which accounts are opened to know it."""

import json
import random
from pathlib import Path

import pytest

from auditplane import keeping, log
from auditplane.event import Rules, parse
from auditplane.http.checkpoints import LOOK_SECONDS, Checkpoints
from auditplane.store.sqlite.fetched import Fetched, fetched_mark, keep_fetched, last_fetched
from auditplane.times import SECOND_US
from folders import FreeFolder
from tenants import events

BEGAN_US = 1_700_000_000 * SECOND_US
NAMES = ("a", "b", "c")


class Logs:
    """Logs in a folder, a clock, and what a naive model knows of them: when each event was recorded."""

    def __init__(self, path: Path) -> None:
        self.folder = FreeFolder(path)
        self.path = path
        self.now_us = BEGAN_US
        self.recorded: dict[str, list[int]] = {name: [] for name in NAMES}
        self.covered: dict[str, int] = {}
        self.known = self.started()

    def started(self) -> Checkpoints:
        """What a server knows that starts now: it looks at every account."""
        made = Checkpoints(self.path, self.clock, lambda: self.now_us / SECOND_US)
        for name in self.folder.accounts():
            with self.folder.account(name) as store:
                made.look(name, store)
        return made

    def clock(self) -> int:
        return self.now_us

    def record(self, name: str, count: int) -> list[str]:
        with self.folder.account(name) as store:
            batch = parse(json.dumps(events(count)).encode(), Rules(account=name))
            (ids,) = log.record(store, [log.Request(batch, "test")], self.clock)
            self.known.look(name, store)
        assert not isinstance(ids, Exception)
        self.recorded[name] += [self.now_us] * count
        return list(ids)

    def fetch(self, name: str, *, missing: int = 0) -> None:
        """A checkpoint is fetched, which may be one of a moment before."""
        self.covered[name] = max(0, len(self.recorded[name]) - missing)
        keep_fetched(self.path, name, Fetched(self.covered[name], self.now_us))

    def lag(self) -> float:
        """Of the model."""
        waiting = [self.recorded[name][size:] for name, size in self.covered.items()]
        return (self.now_us - min((times[0] for times in waiting if times), default=self.now_us)) / SECOND_US

    def tend(self) -> None:
        """Opens what must be looked at again."""
        for name in self.folder.accounts():
            if self.known.is_due(name):
                with self.folder.account(name) as store:
                    self.known.look(name, store)


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_the_lag_is_that_of_a_naive_look_at_all_events(logs: Logs, seed: int) -> None:
    """Whatever is recorded and fetched in whatever order, and however often the server is started anew."""
    dice = random.Random(seed)
    for _ in range(60):
        logs.now_us += dice.randrange(1, 100_000) * SECOND_US
        name = dice.choice(NAMES)
        match dice.randrange(5):
            case 0 | 1:
                logs.record(name, dice.randrange(1, 4))
            case 2 if logs.recorded[name]:
                logs.fetch(name, missing=dice.choice((0, 0, 1)))
            case 3:
                logs.known = logs.started()
        logs.now_us += int(LOOK_SECONDS * SECOND_US)
        logs.tend()
        assert logs.known.lag_seconds() == logs.lag()


def test_an_account_is_opened_again_only_when_another_checkpoint_was_fetched(logs: Logs) -> None:
    """Neither as long as none was, nor for one that is as large, nor at once each time."""
    for name in NAMES:
        logs.record(name, 2)
    for name in ("a", "b"):
        logs.fetch(name)
        logs.record(name, 1)
    logs.fetch("b")
    logs.now_us += int(LOOK_SECONDS * SECOND_US)
    logs.tend()
    logs.now_us += 1_000 * SECOND_US
    assert not any(map(logs.known.is_due, NAMES))
    logs.fetch("a")
    logs.fetch("b")
    assert not any(map(logs.known.is_due, NAMES))
    logs.now_us += int(LOOK_SECONDS * SECOND_US)
    assert [name for name in NAMES if logs.known.is_due(name)] == ["a"]
    logs.tend()
    assert not any(map(logs.known.is_due, NAMES))
    assert logs.known.lag_seconds() == 0
    logs.fetch("c")
    logs.now_us += int(LOOK_SECONDS * SECOND_US)
    assert [name for name in NAMES if logs.known.is_due(name)] == ["c"]


def test_the_first_event_that_waits_may_be_gone(logs: Logs) -> None:
    """It came after the last checkpoint, so the lag is never less than it was."""
    logs.record("a", 2)
    logs.fetch("a")
    logs.now_us += 10 * SECOND_US
    erased, _ = logs.record("a", 2)
    logs.now_us += 100 * SECOND_US
    with logs.folder.account("a") as store:
        keeping.erase(keeping.Account("a", store, logs.clock, by="tests"), ids=[erased], reason="a test")
    assert logs.known.lag_seconds() == 100
    assert logs.started().lag_seconds() == 110


def test_what_is_gone_or_is_no_note_counts_as_never_fetched(logs: Logs) -> None:
    """An operator may take the note away; an account may go."""
    note = logs.path / "accounts" / "a.fetched"
    for text in (None, "", "{}", '{"size":-1,"at_us":0}', '{"size":1e400,"at_us":0}', "[" * 100_000):
        logs.record("a", 1)
        logs.fetch("a")
        logs.record("a", 1)
        logs.now_us += 100 * SECOND_US
        assert logs.known.lag_seconds() == 100
        if text is None:
            note.unlink()
            assert fetched_mark(logs.path, "a") is None
        else:
            note.write_text(text)
        assert last_fetched(logs.path, "a") is None
        logs.tend()
        assert logs.known.lag_seconds() == 0
    logs.fetch("a")
    logs.record("a", 1)
    logs.now_us += 100 * SECOND_US
    logs.known.forget_all_but(["b"])
    assert logs.known.lag_seconds() == 0


def test_what_is_fetched_again_is_not_written_again(logs: Logs) -> None:
    """Who asks each minute for a log that does not grow costs the disk nothing."""
    logs.record("a", 1)
    logs.fetch("a")
    mark = fetched_mark(logs.path, "a")
    logs.now_us += 100 * SECOND_US
    logs.fetch("a")
    assert fetched_mark(logs.path, "a") == mark
