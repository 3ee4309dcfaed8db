"""Runs a program as systemd or a container would: another user, a read-only root, few system calls.

`python confined.py SETTINGS COMMAND...`, as root; SETTINGS is the JSON of `Confinement`. There is no systemd
to run a unit here, so this asks the kernel for what the options of the unit ask systemd for:

- a mount namespace whose root is a read-only tmpfs: what may be read is bound there read-only, what may be
  written is bound as it is, and /proc shows nothing but processes of the same user (ProtectSystem=strict,
  ProtectHome, PrivateDevices, ProtectProc=invisible, ProcSubset=pid);
- no capability, nor any by a program that has the bit set (CapabilityBoundingSet=, NoNewPrivileges);
- no memory that is written and run (MemoryDenyWriteExecute);
- a seccomp filter of the system calls and socket families that may be used, by libseccomp (SystemCallFilter,
  RestrictAddressFamilies).
"""

import ctypes
import errno
import json
import os
import socket
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
CLONE_NEWNS = 0x20000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN = 24, 38, 65, 1
CAPABILITIES = 64
ACT_ALLOW, CMP_EQ = 0x7FFF0000, 4
DEVICES = ("null", "zero", "random", "urandom")

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Confinement:
    """What the program may do. Paths are absolute."""

    uid: int
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    root: str | None = None  # in place of an empty one
    data: str | None = None  # shown as /data, which the root has
    system_calls: tuple[str, ...] | None = None
    families: tuple[str, ...] = ("AF_INET", "AF_INET6", "AF_UNIX")
    refuse_writing_code: bool = True

    def command(self) -> list[str]:
        """What to put before the command of the program."""
        return [sys.executable, __file__, json.dumps(asdict(self))]


class Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def main() -> None:
    settings = Confinement(**json.loads(sys.argv[1]))
    command = sys.argv[2:]
    enter_root(settings)
    for capability in range(CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # those that this kernel knows
    os.setgroups([])
    os.setresgid(settings.uid, settings.uid, settings.uid)
    os.setresuid(settings.uid, settings.uid, settings.uid)
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if settings.refuse_writing_code:
        checked(libc.prctl(PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0))
    os.umask(0o077)
    if settings.system_calls is not None:
        filter_calls(settings)
    os.execv(command[0], command)  # noqa: S606 - written by the test


def checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    checked(libc.mount(source.encode(), str(target).encode(), kind.encode(), flags, options.encode()))


def enter_root(settings: Confinement) -> None:
    """Makes the new root, and goes into it."""
    checked(libc.unshare(CLONE_NEWNS))
    mount("none", Path("/"), flags=MS_REC | MS_PRIVATE)
    root = Path(tempfile.mkdtemp())
    if settings.root is None:
        mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    else:
        mount(settings.root, root, flags=MS_BIND)
    if settings.data is not None:
        mount(settings.data, root / "data", flags=MS_BIND)
    for path in settings.readable:
        bind(root, Path(path), MS_RDONLY)
    for path in settings.writable:
        bind(root, Path(path), 0)
    for name in DEVICES:
        bind(root, Path("/dev", name), 0)
    (root / "proc").mkdir(exist_ok=True)
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV, "subset=pid,hidepid=invisible")
    mount("none", root, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chroot(root)
    os.chdir("/")


def bind(root: Path, path: Path, flags: int) -> None:
    """Shows a path below the root; a link, such as /lib, becomes the same link."""
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        target.symlink_to(path.readlink())
        return
    target.mkdir(exist_ok=True) if path.is_dir() else target.touch()
    mount(str(path), target, flags=MS_BIND)
    if flags:
        mount("none", target, flags=MS_REMOUNT | MS_BIND | MS_NOSUID | flags)


def filter_calls(settings: Confinement) -> None:
    """Has the kernel answer EPERM to all other calls, and to sockets of other families."""
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    seccomp.seccomp_init.argtypes = [ctypes.c_uint32]
    context = ctypes.c_void_p(seccomp.seccomp_init(0x00050000 | errno.EPERM))
    for name in settings.system_calls or ():
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0 and name != "socket":  # others are of other processors
            checked(seccomp.seccomp_rule_add(context, ACT_ALLOW, number, 0))
    number = seccomp.seccomp_syscall_resolve_name(b"socket")
    for family in settings.families:
        only = (Comparison * 1)(Comparison(0, CMP_EQ, getattr(socket, family), 0))
        checked(seccomp.seccomp_rule_add_array(context, ACT_ALLOW, number, 1, only))
    checked(seccomp.seccomp_load(context))


if __name__ == "__main__":
    main()
