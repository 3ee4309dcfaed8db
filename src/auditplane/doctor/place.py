"""The folder and the disk that it is on."""

import fcntl
import mmap
import os
import pwd
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from auditplane.doctor.finding import Finding, Look, ok, warn, wrong
from auditplane.signing import KEY_FILE
from auditplane.store.sqlite.database import ROOM_BYTES_MIN
from auditplane.store.sqlite.folder import ACCOUNT_NAME, ACCOUNTS, BACKUP_FILE, CLOCK_FILE, RESTORING

PROBE_FILE: Final = "doctor.probe"
PROBE_BYTES: Final = 4_096
FREE_BYTES_MIN: Final = 1024 * 1024 * 1024
FREE_SHARE_MIN: Final = 0.05
FREE_NAMES_MIN: Final = 1_000
LISTED_MAX: Final = 5
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

# File systems on which locks or shared memory don't hold between processes or machines.
NETWORK: Final = frozenset(
    (
        "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "drvfs", "fuse.cephfs", "fuse.davfs2", "fuse.gcsfuse",
        "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "lustre", "ncpfs",
        "nfs", "nfs4", "ocfs2", "prl_fs", "smb3", "smbfs", "vboxsf",
    )
)  # fmt: skip
MEMORY: Final = frozenset(("tmpfs", "ramfs"))
LAYERS: Final = frozenset(("overlay", "aufs"))

_OURS: Final = re.compile(
    r"(lock|workers\.lock|control\.db(-wal|-shm|-journal)?|control\.version|admin\.key|health|metrics|rates|"
    r"log\.(key|key\.next|retired|lock)|lost\+found|doctor\.probe|"
    rf"{re.escape(BACKUP_FILE)}|{re.escape(CLOCK_FILE)}|{ACCOUNTS}|{RESTORING})(\.new)?"
)
_OF_ACCOUNTS: Final = re.compile(
    rf"{ACCOUNT_NAME.pattern}\.(db(-wal|-shm|-journal)?|lock|verified|fetched)(\.new)?"
)


def check_folder(look: Look) -> Iterator[Finding]:
    """There is a data folder, and nothing else in its place."""
    path = look.folder
    if not path.exists():
        yield _missing(path)
        return
    names = {entry.name for entry in path.iterdir()} - {"lost+found"} if path.is_dir() else None
    if names is None:
        yield wrong("folder", f"{path} is no folder.", "Give the path of one with --data.")
    elif RESTORING in names:
        yield wrong(
            "folder",
            f"A backup was to be restored to {path}, and that did not come to its end.",
            "Remove what is in it, and restore the backup again: `auditplane restore`.",
        )
    elif not names:
        yield ok("folder", f"{path} is empty: the first start makes a data folder of it.")
    elif not look.is_data_folder:
        listed = _listed(sorted(names))
        yield wrong(
            "folder",
            f"{path} is not a data folder, and not empty: {listed}.",
            "Give the path of a data folder, or of a new one, with --data.",
        )
    else:
        yield ok("folder", f"{path} is a data folder{_served(look)}.")


def _missing(path: Path) -> Finding:
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        return wrong(
            "folder",
            f"There is no folder {path}, and {parent} does not let this user make it.",
            "Make it as root, and give it to the user who runs the server.",
        )
    return warn(
        "folder",
        f"There is no folder {path} yet.",
        "If there should be one, give its path with --data; else the first start makes it.",
    )


def _served(look: Look) -> str:
    return "" if look.holder is None else f", served by the process {look.holder}"


def check_modes(look: Look) -> Iterator[Finding]:
    """Nobody but the owner can look into the folder, and everything in it is his."""
    owner = look.folder.stat().st_uid
    loose, foreign = [], []
    for path in (look.folder, *_entries(look.folder)):
        with suppress(FileNotFoundError):  # a server makes and removes some
            found = path.lstat()
            is_told_elsewhere = stat.S_ISLNK(found.st_mode) or path.name == KEY_FILE
            if found.st_mode & OTHERS and not is_told_elsewhere:
                loose.append(_name(path, look.folder))
            if found.st_uid != owner:
                foreign.append(_name(path, look.folder))
    if loose:
        yield warn(
            "modes",
            f"Others on this machine may look at {_listed(loose)}.",
            f"chmod -R go= {look.folder}",
        )
    if foreign:
        yield wrong(
            "owner",
            f"{look.folder} is {_user(owner)}'s, but these in it are not: {_listed(foreign)}. The server "
            "can't open them.",
            f"chown -R {_user(owner)} {look.folder}",
        )
    if owner not in (os.geteuid(), os.getuid()) and os.getuid() != 0:
        yield wrong(
            "owner",
            f"{look.folder} is {_user(owner)}'s, and you are {_user(os.geteuid())}.",
            f"Run this, and the server, as {_user(owner)}.",
        )
    elif not loose and not foreign:
        yield ok("owner", f"Everything is {_user(owner)}'s, and the folder is closed to others.")


def _entries(folder: Path) -> list[Path]:
    inner = [entry for name in (ACCOUNTS, "metrics") for entry in _listed_in(folder / name)]
    return [entry for entry in (*_listed_in(folder), *inner) if entry.name != "lost+found"]


def _listed_in(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _name(path: Path, folder: Path) -> str:
    return "the folder itself" if path == folder else path.relative_to(folder).as_posix()


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _listed(names: list[str]) -> str:
    """Some of many names."""
    more = len(names) - LISTED_MAX
    return ", ".join(names[:LISTED_MAX]) + (f" and {more:,} more" if more > 0 else "")


def check_contents(look: Look) -> Iterator[Finding]:
    """There is nothing in the folder that is not ours."""
    strange = [path.name for path in _listed_in(look.folder) if not _OURS.fullmatch(path.name)]
    inside = [
        path.name for path in _listed_in(look.folder / ACCOUNTS) if not _OF_ACCOUNTS.fullmatch(path.name)
    ]
    strange += [f"{ACCOUNTS}/{name}" for name in inside]
    if strange:
        yield warn(
            "contents",
            f"{_listed(strange)} in {look.folder} is nothing that Auditplane made.",
            "Move it elsewhere: nothing looks after it here, and no backup has it.",
        )


def check_file_system(look: Look) -> Iterator[Finding]:
    """The file system is one on which locks and shared memory hold."""
    with suppress(FileNotFoundError):  # no Linux
        yield file_system(look.folder, Path("/proc/self/mounts").read_text("utf-8", "surrogateescape"))


def file_system(folder: Path, mounts: str) -> Finding:
    """What is to be said of the file system of a folder, by the mounts of the system."""
    place, kind = _mount(folder.resolve(), mounts)
    if kind in NETWORK:
        return wrong(
            "file system",
            f"{folder} is on {kind}, where locks and shared memory don't hold: events can be lost.",
            "Stop the server, and move the folder to a disk of this machine.",
        )
    if kind in MEMORY:
        return warn(
            "file system",
            f"{folder} is in memory ({kind} at {place}): all of it is gone after a restart of the machine.",
            "Move the folder to a disk, unless that is what you want.",
        )
    if kind in LAYERS:
        return warn(
            "file system",
            f"{folder} is in the layer of a container ({kind}): it is gone with the container.",
            "Mount a volume, and put the folder there.",
        )
    return ok("file system", f"{kind or 'It'} at {place}.")


def _mount(path: Path, mounts: str) -> tuple[str, str]:
    """Where the file system of a path is mounted, and its kind."""
    found = ("/", "")
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) > 2:
            place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1])
            if path.is_relative_to(place) and len(place) >= len(found[0]):
                found = place, fields[2]  # the last one covers those before it
    return found


def check_room(look: Look) -> Iterator[Finding]:
    """There is room on the disk, for bytes and for names."""
    disk = shutil.disk_usage(look.folder)
    share = disk.free / disk.total if disk.total else 0.0
    told = f"{disk.free / 1e9:,.1f} GB of {disk.total / 1e9:,.1f} GB are free ({share:.0%})"
    names = os.statvfs(look.folder)
    if disk.free < ROOM_BYTES_MIN:
        do = "Free some room, or enlarge the disk: recording goes on by itself."
        yield wrong(
            "room", f"The disk is full ({disk.free:,} bytes are free): recording fails, or soon will.", do
        )
    elif disk.free < FREE_BYTES_MIN or share < FREE_SHARE_MIN:
        do = (
            "Free some room, enlarge the disk, or keep events for a shorter time: `auditplane retention set`."
        )
        yield warn("room", f"{told}.", do)
    else:
        yield ok("room", f"{told}.")
    if names.f_files and names.f_favail < FREE_NAMES_MIN:
        do = "Remove files that nobody needs."
        yield warn("room", f"The disk has room for {names.f_favail:,} more files only.", do)


def check_disk(look: Look) -> Iterator[Finding]:
    """The disk takes a file, syncs it, locks it and shows it to other processes."""
    path = look.folder / PROBE_FILE
    try:
        descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600
        )
        try:
            _try(descriptor)
        finally:
            os.close(descriptor)
            path.unlink()
    except OSError as error:
        yield wrong(
            "disk",
            f"It does not write, sync, lock or map a file in {look.folder}: {error.strerror}.",
            "See whether the disk is full, read-only or broken (`dmesg`), and whose the folder is.",
        )
    else:
        yield ok("disk", "It writes, syncs, locks and maps files.")


def _try(descriptor: int) -> None:
    os.pwrite(descriptor, bytes(PROBE_BYTES), 0)
    os.fsync(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as SQLite does
    with mmap.mmap(descriptor, PROBE_BYTES) as mapped:
        mapped[:5] = b"probe"
        mapped.flush()
    if os.pread(descriptor, 5, 0) != b"probe":
        raise OSError(0, "what was mapped is not what is read")
