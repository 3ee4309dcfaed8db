"""`serve`: holds the data folder, keeps it in order, and runs the workers.

The workers are processes of granian that share the folder, which this process keeps in order meanwhile, and
settles when they are gone (see `upkeep`).
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
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from auditplane import limits, listening
from auditplane.access import Access
from auditplane.access.stored import CONTROL_FILE
from auditplane.config import Config, token
from auditplane.errors import AuditplaneError, FolderInUse, NewerFormat, StoreError
from auditplane.http import memory, rates
from auditplane.http.checkpoints import Checkpoints
from auditplane.http.expiry import Expiry
from auditplane.http.lines import standard_error
from auditplane.http.switch_interval import SWITCH_SECONDS
from auditplane.http.upkeep import Keeper
from auditplane.log import clock
from auditplane.rotation import prepare
from auditplane.store.sqlite.database import bound_caches
from auditplane.store.sqlite.folder import (
    ACCOUNTS,
    RESTORING,
    DataFolder,
    NotedClock,
    accounts_in,
    hold,
    last_write_us,
    noted_clock,
    told_of_missing_log,
)
from auditplane.store.sqlite.wal import commits_behind, told_of_commits_behind

SIGNAL_SECONDS_MAX: Final = 0.3
ORPHANS_SECONDS_MAX: Final = 5.0
CONNECTIONS_MIN: Final = 100
OPEN_FILES_BESIDE: Final = 512
"""Of those of open accounts and of the server itself."""
METRICS_BYTES: Final = {
    "counter": 64 * 1024, "gauge_livemax": 64 * 1024, "gauge_livemostrecent": 64 * 1024,
    "gauge_livesum": 64 * 1024, "histogram": 1024 * 1024,
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
        checkpoints = Checkpoints(config.data, clock)
        keeper = Keeper(folder, expiry, checkpoints, tls_ends_us=tls.ends_us if tls else 0)
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
        # With HTTP/2 a stranger holds a hundred answers a connection in the server's memory, and what breaks
        # one answer off breaks off the others of its connection.
        http=HTTPModes.http1,
        backlog=4096,
        # A connection counts as one request there.
        backpressure=config.connections,
        http1_settings=HTTP1Settings(
            header_read_timeout=limits.HEADER_SECONDS_MAX * 1000, max_buffer_size=limits.HEADER_BYTES_MAX
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
    standard_error().start()  # here: a thread that comes last would start one that comes last, too
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
        for name in sorted({*access.accounts()} - {*folder.accounts()}):
            _log.error("%s", told_of_missing_log(folder.path, name))
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
