"""`serve`: holds the data folder, keeps it in order, and runs the workers.

The workers are processes of granian that share the folder. This process seals what they record, and settles
the folder when they are gone.
"""

import fcntl
import logging
import multiprocessing
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final

import structlog
from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from auditplane import limits
from auditplane.access import Access
from auditplane.config import Config
from auditplane.errors import AuditplaneError, FolderInUse, StoreError
from auditplane.http.app import build, clock
from auditplane.store.sqlite import sealing
from auditplane.store.sqlite.folder import DataFolder, hold

KEEPER_SECONDS: Final = 0.05
SETTLE_SECONDS_MAX: Final = 1.5
ORPHANS_SECONDS_MAX: Final = 5.0

_log = structlog.get_logger(__name__)


def serve(config: Config, ready: Callable[[Path | None], None]) -> None:
    """Serves until SIGTERM or SIGINT; calls `ready` with the path of a new admin key once it listens.

    Raises FolderInUse, NewerFormat, StoreError, and SystemExit when a worker can't be kept running.
    """
    folder = DataFolder(config.data)
    lock = hold(config.data)
    try:
        _wait_for_orphans(config.data)
        _check_address(config)
        access = Access(folder, clock)
        try:
            admin_key = access.ensure_admin_key()
        finally:
            access.close()
        _prepare_metrics(config.data)
        keeper = Keeper(folder)
        keeper.start()
        try:
            _run_workers(config, lambda: ready(admin_key))
        finally:
            keeper.stop()
    finally:
        folder.close()
        os.close(lock)


def _run_workers(config: Config, ready: Callable[[], None]) -> None:
    multiprocessing.set_start_method("spawn", force=True)
    granian = Granian(
        "auditplane.http.server",
        address=config.host,
        port=config.port,
        interface=Interfaces.ASGI,
        loop=Loops.asyncio,
        workers=config.workers,
        websockets=False,
        backlog=4096,
        http1_settings=HTTP1Settings(header_read_timeout=30_000),
        log_level=LogLevels.warning,
        ssl_cert=config.tls_cert,
        ssl_key=config.tls_key,
        respawn_failed_workers=True,
        workers_kill_timeout=limits.SHUTDOWN_SECONDS_MAX - 1,
    )
    threading.Thread(target=_announce, args=(config, ready), daemon=True).start()
    granian.serve(target_loader=partial(load_worker, config), wrap_loader=False)


def load_worker(config: Config) -> Any:
    """Runs in each worker: the application, tied to the life of the process that serves."""
    logging.getLogger("_granian").setLevel(logging.WARNING)
    shared = os.open(config.data / "workers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(shared, fcntl.LOCK_SH)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return build(config)


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


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
                time.sleep(0.05)
    finally:
        os.close(descriptor)


def _check_address(config: Config) -> None:
    """Raises StoreError when the address can't be listened on; workers would share it with others."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        raise StoreError(
            f"Can't listen on {config.host} port {config.port}: {error.strerror}. "
            "Choose another with --host and --port."
        ) from None


def _announce(config: Config, ready: Callable[[], None]) -> None:
    """Calls `ready` once a worker takes connections."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)  # noqa: S104 - looked for, not bound
    while True:
        try:
            socket.create_connection((host, config.port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            ready()
            return


def _prepare_metrics(path: Path) -> None:
    """An empty folder for the counts of the workers."""
    folder = path / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


class Keeper:
    """A thread that seals, compacts and checkpoints what the workers record."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[int, int]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper")

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends, and settles the accounts that were written to, as far as the time allows."""
        self._stopping.set()
        self._thread.join()
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        for name in self._folder.accounts():
            if time.monotonic() > deadline:
                return
            self._tend(name, sealing.settle)

    def _run(self) -> None:
        while not self._stopping.wait(KEEPER_SECONDS):
            for name in self._folder.accounts():
                mark = self._folder.wal_mark(name)
                if self._seen.get(name) != mark:
                    self._seen[name] = mark
                    busy = self._tend(name, sealing.tend)
                    if busy:
                        del self._seen[name]

    def _tend(self, name: str, work: Callable[[Any], bool | None]) -> bool:
        try:
            with self._folder.account(name) as store:
                return bool(work(store))
        except AuditplaneError as error:
            _log.warning("upkeep failed", account=name, error=str(error))
            self._stopping.wait(1.0)
            return False
