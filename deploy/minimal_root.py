"""Makes the root folder of a container image: an environment, its Python, and the libraries that these load.

    ENVIRONMENT/bin/python deploy/minimal_root.py FOLDER

FOLDER is made, and then holds the environment at the path where it is, and what it needs of the system. There
is nothing else in it: no shell, no tools. Which packages of Debian its files are of stands where scanners
look for it, in var/lib/dpkg/status.d. Made by root, its folder /data belongs to user 65532.
"""

import compileall
import os
import py_compile
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

USER: Final = 65532
PASSWD: Final = f"auditplane:x:{USER}:{USER}:Auditplane:/data:/nonexistent\n"

# Of the standard library: what needs a screen or a terminal, makes environments, or tests Python itself.
NOT_NEEDED: Final = (
    "__pycache__", "config-*", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test",
    "tests", "tkinter", "turtledemo", "turtle.py", "venv",
    "_curses*", "_dbm*", "_gdbm*", "_test*", "_tkinter*", "_xx*", "nis.*", "readline*", "xx*",
)  # fmt: skip
# Of the packages: what is for those who build with them, and what zstandard has for PyPy.
NOT_RUN: Final = (
    "__pycache__", "tests", "include", "*.pyi", "*.pxd", "*.a", "_cffi.*", "activate*", "Activate*",
)  # fmt: skip


def main(target: Path) -> None:
    """Makes the folder."""
    target.mkdir(parents=True)
    for folder in standard_library():
        copy_tree(folder, target, NOT_NEEDED)
    copy_tree(Path(sys.prefix), target, NOT_RUN)
    python = [Path(sys.executable), *links_of(Path(sys.executable))]
    loading = [python[-1], *target.rglob("*.so"), *target.rglob("*.so.*")]
    files = {*python, *(file for file in libraries(loading) if not file.is_relative_to(target))}
    for file in files:
        copy_file(file, target)
    write_system(target)
    tell_packages(target, {*files, *(folder / "os.py" for folder in standard_library())})
    if shutil.which("ldconfig"):
        folders = sorted({str(file.parent) for file in files if ".so" in file.name})
        (target / "etc/ld.so.conf").write_text("\n".join([*folders, ""]))
        subprocess.run(["ldconfig", "-X", "-r", target], check=True)
    # No cache can be written where the root is read-only, and the times of files may not survive a copy.
    compileall.compile_dir(
        target, stripdir=str(target), prependdir="/", quiet=2, workers=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip


def standard_library() -> set[Path]:
    """Its folders: that of modules, and that of those in C where it is another one."""
    at = {"installed_base": sys.base_prefix, "installed_platbase": sys.base_exec_prefix}
    at |= {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    return {Path(sysconfig.get_path(name, vars=at)) for name in ("stdlib", "platstdlib")}


def copy_tree(folder: Path, target: Path, but: Iterable[str]) -> None:
    """Copies a folder to its own path below the target, links as links."""
    shutil.copytree(
        folder, below(target, folder), symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*but)
    )


def copy_file(file: Path, target: Path) -> None:
    """Copies a file, or a link, to its own path below the target."""
    to = below(target, file)
    if not to.is_symlink() and not to.exists():
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, to, follow_symlinks=False)


def below(target: Path, path: Path) -> Path:
    """Where a path lies below the target. No link in the path is followed."""
    return target / path.relative_to("/")


def libraries(files: Iterable[Path]) -> Iterator[Path]:
    """The shared libraries that they load, at the paths where they are looked for, and the loader."""
    found = set()
    for file in files:
        done = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False)
        found |= set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE))
    # The C library loads this one when a thread ends.
    found |= {path.replace("libc.so.6", "libgcc_s.so.1") for path in found if path.endswith("/libc.so.6")}
    for path in map(Path, found):
        yield path
        yield from links_of(path)


def links_of(path: Path) -> Iterator[Path]:
    """The file behind a link, and the links on the way."""
    while path.is_symlink():
        path = path.parent / path.readlink()
        yield path


def write_system(target: Path) -> None:
    """What a program asks the system for: who it is, how to look up names, whom to trust."""
    (target / "etc").mkdir(exist_ok=True)
    (target / "etc/passwd").write_text(f"root:x:0:0:root:/nonexistent:/nonexistent\n{PASSWD}")
    (target / "etc/group").write_text(f"root:x:0:\nauditplane:x:{USER}:\n")
    (target / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    trusted = ssl.get_default_verify_paths()
    if trusted.openssl_cafile and Path(trusted.openssl_cafile).exists():
        copy_file(Path(trusted.openssl_cafile), target)
    (target / "tmp").mkdir(mode=0o1777, exist_ok=True)
    (target / "tmp").chmod(0o1777)
    data = target / "data"
    data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(data, USER, USER)


def tell_packages(target: Path, files: Iterable[Path]) -> None:
    """Which packages of Debian the files are of, with their licences."""
    if shutil.which("dpkg-query") is None:
        return
    names = {str(each) for file in files for each in (file, file.resolve())}
    found = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True, check=False)
    status = target / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for package in sorted(set(re.findall(r"^([^:\s]+)(?::\w+)?: /", found.stdout, re.MULTILINE))):
        told = subprocess.run(["dpkg-query", "--status", package], capture_output=True, text=True, check=True)
        (status / package).write_text(told.stdout)
        licence = Path("/usr/share/doc", package, "copyright")
        if licence.exists():
            to = below(target, licence)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(licence, to)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
