"""`serve`: holds the data folder, keeps it in order, and runs the workers.

The workers are processes of granian that share the folder. This process seals what they record, and settles
the folder when they are gone.
"""

import atexit
import contextlib
import fcntl
import logging.config
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings, HTTP2Settings
from granian.log import LogLevels

from auditplane import limits, listening
from auditplane.access import CONTROL_FILE, Access
from auditplane.config import Config, token
from auditplane.errors import AuditplaneError, FolderInUse, NewerFormat, StoreError
from auditplane.http import memory, rates
from auditplane.http.expiry import Expiry
from auditplane.http.lines import standard_error
from auditplane.log import clock
from auditplane.rotation import prepare
from auditplane.store.sqlite import sealing, tree
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.database import bound_caches
from auditplane.store.sqlite.folder import (
    ACCOUNTS,
    RESTORING,
    DataFolder,
    NotedClock,
    accounts_in,
    hold,
    last_write_us,
    note_clock,
    noted_clock,
)
from auditplane.store.sqlite.wal import commits_behind, told_of_commits_behind
from auditplane.times import SECOND_US

KEEPER_SECONDS: Final = 0.05
KEEPER_SHARE_MAX: Final = 0.05
KEEPER_RETRY_SECONDS: Final = 1.0
MEASURE_SECONDS: Final = 0.5
FIRST_LOOK_SECONDS_MAX: Final = 1.0
CLOCK_NOTE_SECONDS: Final = 600.0
DUE_SECONDS_MAX: Final = 0.25
SIGNAL_SECONDS_MAX: Final = 0.3
SETTLE_SECONDS_MAX: Final = 1.5
ORPHANS_SECONDS_MAX: Final = 5.0
CONNECTIONS_MIN: Final = 100
SWITCH_SECONDS: Final = 0.001
"""Who records changes threads some times: while another computes, each change takes so long."""
OPEN_FILES_BESIDE: Final = 512
"""Of those of open accounts and of the server itself."""
METRICS_BYTES: Final = {
    "counter": 64 * 1024, "gauge_livemax": 64 * 1024, "gauge_livemostrecent": 64 * 1024,
    "gauge_livesum": 64 * 1024, "gauge_max": 64 * 1024, "histogram": 1024 * 1024,
}  # fmt: skip

_log = logging.getLogger(__name__)
_LOGGERS: Final = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "auditplane.http.lines.JsonLines"}},
    "handlers": {"stderr": {"class": "auditplane.http.lines.LinesHandler", "formatter": "line"}},
    "loggers": {
        "auditplane": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        # It warns, now and then, of having to kill a worker that has just ended by itself.
        "_granian": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
    },
}


def serve(config: Config, ready: Callable[[Path | None], None]) -> None:
    """Serves until SIGTERM or SIGINT; calls `ready` with the path of a new admin key once it listens.

    Raises FolderInUse, NewerFormat, InvalidConfig, StoreError, and SystemExit when a worker can't be kept
    running.
    """
    logging.config.dictConfig(_LOGGERS)
    tls = listening.certificate(config)
    token(config.metrics_token)  # a worker would just end
    _check_folder(config.data)
    bound_caches()
    os.umask(0o077)  # nobody else may read what is made from here on, by workers too
    folder = DataFolder(config.data)
    lock = hold(config.data)
    _let_the_terminal_end_it()  # before there is any thread that could take its signals
    memory.give_back_regularly()
    standard_error().start()
    try:
        _wait_for_orphans(config.data)
        known = _known_clock(config.data)  # before anything is written
        _look_behind_logs(folder)
        address = listening.address(config)
        admin_key = _prepare(folder)
        prepare(folder, config.log_name, config.log_key, clock)
        _make_room_for_metrics(config.data / "metrics")
        expiry = Expiry(config.retention_days, clock, known)
        keeper = Keeper(folder, expiry, tls_ends_us=tls.ends_us if tls else 0)
        keeper.look_first()
        keeper.start()
        try:
            _run_workers(config, address, lambda: ready(admin_key))
        finally:
            keeper.stop()
    finally:
        folder.close()
        os.close(lock)


def _run_workers(config: Config, address: str, ready: Callable[[], None]) -> None:
    multiprocessing.set_start_method("spawn", force=True)
    room = max(CONNECTIONS_MIN, _raised_open_files() - OPEN_FILES_BESIDE)
    config = replace(config, connections=min(config.connections, room))
    granian: Any = Granian(
        "auditplane.http.server",
        address=address,
        port=config.port,
        interface=Interfaces.ASGI,
        loop=Loops.asyncio,
        workers=config.workers,
        websockets=False,
        backlog=4096,
        # A connection counts as one request there.
        backpressure=config.connections,
        http1_settings=HTTP1Settings(
            header_read_timeout=limits.HEADER_SECONDS_MAX * 1000, max_buffer_size=limits.HEADER_BYTES_MAX
        ),
        # It would take 16 MiB of headers a request, which cost their sender a few bytes: HPACK packs them.
        http2_settings=HTTP2Settings(
            max_headers_size=limits.HEADER_BYTES_MAX,
            max_concurrent_streams=limits.REQUESTS_PER_CONNECTION_MAX,
            max_send_buffer_size=limits.HEADER_BYTES_MAX,
        ),
        log_level=LogLevels.error,
        log_dictconfig=_LOGGERS,
        ssl_cert=config.tls_cert,
        ssl_key=config.tls_key,
        respawn_failed_workers=True,
        workers_kill_timeout=limits.SHUTDOWN_SECONDS_MAX - 1,
    )
    threading.Thread(target=_announce, args=(config, ready), daemon=True).start()
    # A signal to all processes may reach a worker first, which then ends before the server knows why.
    logging.getLogger("_granian").addFilter(partial(_is_unexpected, granian))
    try:
        granian.serve(target_loader=partial(load_worker, config), wrap_loader=False)
    except SystemExit:
        if not granian.interrupt_signal:
            raise


def _is_unexpected(granian: Any, record: logging.LogRecord) -> bool:
    """Whether what is to be logged is no end of a worker that the end of the server explains."""
    if record.msg.startswith("Unexpected exit"):
        time.sleep(SIGNAL_SECONDS_MAX)
        return not granian.interrupt_signal
    return True


def load_worker(config: Config) -> Any:
    """Runs in each worker: the application, tied to the life of the process that serves."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    atexit.register(_end_at_once)
    memory.keep()
    memory.give_back_regularly()
    sys.setswitchinterval(SWITCH_SECONDS)
    bound_caches()
    shared = os.open(config.data / "workers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(shared, fcntl.LOCK_SH)
    _make_room_for_metrics(config.data / "metrics")
    from auditplane.http.app import build  # noqa: PLC0415 - after there is room for metrics, and only here

    return build(config)


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _end_at_once() -> None:
    """Ends a worker that has closed everything, and does not take its interpreter apart before.

    A thread of the server below that wanted the interpreter in that moment would abort the process, with a
    panic on standard error.
    """
    logging.shutdown()
    os._exit(0)


# Before the workers.


def _check_folder(path: Path) -> None:
    """Raises StoreError for one that is somebody else's, half restored, holds other things, or lost its keys.

    Its mode is about to change.
    """
    with contextlib.suppress(OSError):
        _check_owner(path, path.stat().st_uid)
    if (path / RESTORING).exists():
        raise StoreError(
            f"A backup was to be restored to {path}, and that did not come to its end. Remove what is in it, "
            "and restore the backup again."
        )
    with contextlib.suppress(OSError):
        found = {entry.name for entry in path.iterdir()} - {"lost+found"}
        if found and not found & {CONTROL_FILE, ACCOUNTS}:
            raise StoreError(
                f"{path} is not a data folder, and not empty. Give the path of one, or of a new folder."
            )
        if CONTROL_FILE not in found and accounts_in(path):
            raise StoreError(
                f"{path} holds logs, but no {CONTROL_FILE}, which has their API keys. Put it back from a "
                f"backup. Is there none, `touch {path / CONTROL_FILE}` has the next start make a new key."
            )


def _check_owner(path: Path, owner: int) -> None:
    """Raises StoreError for the folder of another user, before anything in it is made or changed."""
    if os.geteuid() == 0 != owner:
        raise StoreError(
            f"The data folder {path} is that of user {owner}, who could not open what root makes in it. "
            "Run the server as that user."
        )
    if os.geteuid() != owner:
        raise StoreError(
            f"The data folder {path} is that of user {owner}; a server can only use one of its own. "
            f"Give the path of a new folder, such as {path / 'trail'}."
        )


def _prepare(folder: DataFolder) -> Path | None:
    """Brings all there is to the newest format; returns the path of a first admin key if it made one."""
    access = Access(folder, clock)
    try:
        admin_key = access.ensure_admin_key()
    finally:
        access.close()
    for name in folder.accounts():
        try:
            if not folder.is_current(name):
                with folder.account(name):
                    pass
        except NewerFormat:
            raise
        except (AuditplaneError, OSError) as error:
            _log.error("the account %s can't be opened: %s", name, error)
    _prepare_metrics(folder.path)
    rates.prepare(folder.path)
    return admin_key


def _prepare_metrics(path: Path) -> None:
    """An empty folder for the counts of the workers."""
    folder = path / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def _make_room_for_metrics(folder: Path) -> None:
    """Files for the counts of this worker that lie on the disk wholly; drops the gauges of ended workers.

    The files are mapped into memory: where a full disk has no room for a page, writing to it would end the
    worker. When there is no room now, the worker keeps its counts to itself.
    """
    for path in folder.glob("gauge_live*.db"):
        try:
            os.kill(int(path.stem.rpartition("_")[2]), 0)
        except OSError:  # it is gone, or its number is another's now
            path.unlink(missing_ok=True)
    try:
        for name, size in METRICS_BYTES.items():
            (folder / f"{name}_{os.getpid()}.db").write_bytes(bytes(size))
    except OSError as error:
        _log.warning("no room for metrics: %s", error)
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


def _look_behind_logs(folder: DataFolder) -> None:
    """Tells of commits that can't be read, before anything is written over them."""
    databases = {"control.db": folder.path / CONTROL_FILE} | {
        f"account {name}": folder.path / ACCOUNTS / f"{name}.db" for name in folder.accounts()
    }
    for name, database in databases.items():
        with contextlib.suppress(StoreError):  # whoever opens it next tells why
            if commits := commits_behind(database):
                _log.warning("%s: %s", name, told_of_commits_behind(commits))


def _known_clock(path: Path) -> NotedClock:
    """What the folder tells of the clock; one that has neither a note nor a database tells nothing."""
    noted = noted_clock(path)
    if noted is not None:
        return noted
    written_us = last_write_us(path)
    return NotedClock(clock() if written_us is None else written_us)


def _wait_for_orphans(path: Path) -> None:
    """Waits for workers of a server that was killed; raises FolderInUse when they stay."""
    descriptor = os.open(path / "workers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + ORPHANS_SECONDS_MAX
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FolderInUse(
                        f"Workers of an earlier server still use the data folder {path}; end them first."
                    ) from None
                time.sleep(0.01)
    finally:
        os.close(descriptor)


def _raised_open_files() -> int:
    """How many files a process may have open, as many as the system lets it: most start with 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    few, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limits.CONNECTIONS_MAX + OPEN_FILES_BESIDE if few == resource.RLIM_INFINITY else few


def _announce(config: Config, ready: Callable[[], None]) -> None:
    """Calls `ready` once a worker takes connections."""
    while True:
        try:
            socket.create_connection((config.own_host, config.port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            break
    try:
        ready()
    except Exception:  # noqa: BLE001 - nothing above would hear of it
        _log.exception("the server runs, but could not say so")


def _let_the_terminal_end_it() -> None:
    """Has the server end in order, as on SIGTERM, when Ctrl-C is pressed or the terminal is closed.

    The terminal sends these signals to the workers too, which must not end before they are told. So all
    processes block them, and one thread waits for them here.
    """
    main = threading.get_ident()
    terminal = {signal.SIGINT, signal.SIGHUP}
    ignored = {each for each in terminal if signal.getsignal(each) is signal.SIG_IGN}

    def end() -> None:
        while True:
            if signal.sigwait(terminal) not in ignored:
                signal.pthread_kill(main, signal.SIGTERM)

    signal.pthread_sigmask(signal.SIG_BLOCK, terminal)
    resource_tracker.ensure_running()  # it would start with the first worker, and unblock SIGINT here
    signal.pthread_sigmask(signal.SIG_BLOCK, terminal)
    threading.Thread(target=end, daemon=True).start()


class Keeper:
    """A thread that seals, compacts and checkpoints what the workers record, and forgets what has expired."""

    def __init__(self, folder: DataFolder, expiry: Expiry, tls_ends_us: int = 0) -> None:
        self._folder, self._expiry, self._tls_ends_us = folder, expiry, tls_ends_us
        self._seen: dict[str, tuple[int, int]] = {}
        self._again: set[str] = set()
        self._retry_at: dict[str, float] = {}
        self._troubles: dict[str, str] = {}
        self._unsealed: dict[str, int] = {}
        self._wal_bytes: dict[str, int] = {}
        self._clock_was_ahead = False
        self._clock_noted = -CLOCK_NOTE_SECONDS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper")

    def look_first(self) -> None:
        """Hides what has expired while no server ran; where there are very many accounts, in the first ones.

        The thread comes to the others at once. To open an account takes a millisecond.
        """
        self._look_at_clock()
        deadline = time.monotonic() + FIRST_LOOK_SECONDS_MAX
        for name in self._folder.accounts():
            mark = self._folder.wal_mark(name)
            if not mark[1]:
                self._seen[name] = mark
            if time.monotonic() > deadline or self._tend(name, partial(self._expiry.tend, name)):
                self._again.add(name)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends, and settles the accounts that were written to, as far as the time allows."""
        self._stopping.set()
        self._thread.join()
        self._note_clock()
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        for name in self._folder.accounts():
            if time.monotonic() > deadline:
                return
            if self._folder.wal_mark(name)[1]:
                self._tend(name, partial(_settle, deadline=deadline))

    def _run(self) -> None:
        from auditplane.http import metrics  # noqa: PLC0415 - after there is room for them

        process = metrics.Process()
        metrics.START_TIME.set(time.time())
        metrics.TLS_EXPIRY.set(self._tls_ends_us / SECOND_US)
        pause = KEEPER_SECONDS
        measured = -MEASURE_SECONDS
        while not self._stopping.wait(pause):
            began = time.monotonic()
            try:
                worked, more = self._look_around()
            except Exception:  # noqa: BLE001 - the keeper goes on
                _log.exception("upkeep failed")
                pause = KEEPER_RETRY_SECONDS
            else:
                # Looking through very many accounts must not keep a processor busy.
                spent = 0.0 if worked else time.monotonic() - began
                pause = 0.0 if more else max(KEEPER_SECONDS, spent / KEEPER_SHARE_MAX)
                metrics.UPKEEP_TIME.set(time.time())
            if time.monotonic() >= measured + MEASURE_SECONDS:
                measured = time.monotonic()
                process.measure()
                metrics.ACCOUNTS.set(len(self._wal_bytes))
                metrics.WAL.set(sum(self._wal_bytes.values()))
                metrics.UNSEALED.set(sum(self._unsealed.values()))
                metrics.PURGE_LAG.set(self._expiry.lag_seconds())
                metrics.UPKEEP_FAILING.set(len(self._troubles))

    def _look_around(self) -> tuple[bool, bool]:
        """Tends every account that was written to since it was last in order, or that something is due on.

        Says whether there was one, and whether there is more to do at once.
        """
        worked = more = False
        began = time.monotonic()
        self._look_at_clock()
        names = self._folder.accounts()
        self._forget_all_but(names)
        for name in names:
            mark = self._folder.wal_mark(name)
            self._wal_bytes[name] = mark[1]
            if self._stopping.is_set():
                break
            written = self._seen.get(name, (0, 0)) != mark
            is_due = written or name in self._again or self._expiry.is_due(name)
            if is_due and time.monotonic() >= self._retry_at.get(name, 0.0):
                worked = True
                if not written and time.monotonic() > began + DUE_SECONDS_MAX:
                    more = True  # who was written to must not wait for all others
                    continue
                self._seen[name] = mark
                self._again.discard(name)
                if self._tend(name, partial(self._keep, name)):
                    more = True
                    self._again.add(name)
        return worked, more

    def _look_at_clock(self) -> None:
        """Sees whether the clock is trusted, and notes that where it changes, and now and then."""
        is_ahead = self._expiry.look_at_clock() is None
        if is_ahead != self._clock_was_ahead or time.monotonic() >= self._clock_noted + CLOCK_NOTE_SECONDS:
            self._clock_was_ahead = is_ahead
            self._note_clock()

    def _note_clock(self) -> None:
        """Notes what is known of the clock, for the next start and for who sets a retention."""
        self._clock_noted = time.monotonic()
        with contextlib.suppress(AuditplaneError):  # what is older is as safe
            note_clock(self._folder.path, self._expiry.known)

    def _forget_all_but(self, names: Sequence[str]) -> None:
        """Forgets what was noted of accounts that are gone."""
        if self._wal_bytes.keys() != set(names):
            self._wal_bytes = {name: self._wal_bytes.get(name, 0) for name in names}
            for noted in (self._unsealed, self._troubles):
                for name in noted.keys() - self._wal_bytes.keys():
                    del noted[name]

    def _keep(self, name: str, store: AccountStore) -> bool:
        """A round of upkeep of an account, and a step of forgetting."""
        return any([sealing.tend(store), self._expiry.tend(name, store)])

    def _tend(self, name: str, work: Callable[[AccountStore], bool | None]) -> bool:
        """Works on an account; says whether there is more to do. What goes wrong is logged once."""
        try:
            with self._folder.account(name) as store:
                more = bool(work(store))
                self._unsealed[name] = store.count_tail()
        except Exception as error:  # noqa: BLE001 - the other accounts must not suffer
            if self._troubles.get(name) != str(error):
                self._troubles[name] = str(error)
                _log.warning(
                    "upkeep of the account %s failed: %s",
                    name,
                    error,
                    exc_info=None if isinstance(error, AuditplaneError) else error,
                )
            self._retry_at[name] = time.monotonic() + KEEPER_RETRY_SECONDS
            return True
        self._troubles.pop(name, None)
        return more


def _settle(store: AccountStore, deadline: float) -> None:
    """Seals and joins what there is until the deadline, and copies it out of the write-ahead log."""
    while time.monotonic() < deadline and (
        sealing.seal(store, everything=True)
        or sealing.compact(store)
        or sealing.repack(store)
        or tree.grow(store)
    ):
        pass
    store.checkpoint(whole=True)
