"""What a power cut may leave of files.

A disk keeps for sure what was synced. Of what was not, any part may be there: each sector of each write on
its own, in any order, and each change of a size; a file that grew without its bytes has zeros there. Names in
a folder are kept once the folder was synced; else those changed last are gone, in each folder on its own. A
file whose name is lost is lost with it, as no system promises more. When a sync fails, what it should have
kept may be lost even though a later one succeeds, as Linux forgets it ("fsyncgate").
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias

from torture.trace import Cut, Made, Op, Removed, Renamed, Synced, Told, Written

SECTOR_BYTES: Final = 512

Change: TypeAlias = Written | Cut


@dataclass(eq=False)
class File:
    """A file: what is on the disk for sure, and what was done since.

    `unsure` begins where a sync failed: changes that it should have kept, which may never come to the disk,
    and later ones, each with whether it is on the disk for sure.
    """

    kept: bytearray = field(default_factory=bytearray)
    unsure: list[tuple[Change, bool]] = field(default_factory=list)
    pending: list[Change] = field(default_factory=list)

    def sync(self) -> None:
        """What is pending is on the disk."""
        if self.unsure:
            self.unsure += [(change, True) for change in self.pending]
        else:
            for change in self.pending:
                apply(self.kept, change)
        self.pending = []

    def fail_to_sync(self) -> None:
        """What is pending may never come to the disk."""
        self.unsure += [(change, False) for change in self.pending]
        self.pending = []


@dataclass(eq=False)
class Folder:
    """A folder: the names that are on the disk for sure, and how they changed since, oldest first."""

    kept: dict[str, "Node"] = field(default_factory=dict)
    pending: list[dict[str, "Node | None"]] = field(default_factory=list)

    def names(self, changes: int | None = None) -> dict[str, "Node"]:
        """The names after so many of the pending changes; all of them, unless told otherwise."""
        found: dict[str, Node | None] = {**self.kept}
        for change in self.pending[:changes]:
            found |= change
        return {name: node for name, node in found.items() if node is not None}

    def sync(self) -> None:
        """The names are on the disk."""
        self.kept, self.pending = self.names(), []


Node: TypeAlias = File | Folder


def apply(data: bytearray, change: Change) -> None:
    """Makes a change to the bytes of a file."""
    if isinstance(change, Cut):
        del data[change.size :]
        data.extend(bytes(change.size - len(data)))
        return
    end = change.offset + len(change.data)
    data.extend(bytes(max(0, end - len(data))))
    data[change.offset : end] = change.data


class Disk:
    """Files and folders below a root, after what was done to them."""

    def __init__(self) -> None:
        self.root = Folder()

    @classmethod
    def of(cls, path: Path) -> "Disk":
        """A disk that keeps for sure what is in a folder now."""
        disk = cls()
        for found in sorted(path.rglob("*")):
            node = Folder() if found.is_dir() else File(bytearray(found.read_bytes()))
            folder, name = disk._place(found.relative_to(path).as_posix())
            folder.kept[name] = node
        return disk

    def do(self, op: Op) -> None:
        """Does what a program did."""
        match op:
            case Made(path, is_folder):
                folder, name = self._place(path)
                if name not in folder.names():
                    folder.pending.append({name: Folder() if is_folder else File()})
            case Written(path) | Cut(path):
                self._file(path, lambda file: file.pending.append(op))
            case Synced(path, failed):
                self._sync(path, failed)
            case Renamed(old, new):
                self._rename(old, new)
            case Removed(path):
                folder, name = self._place(path)
                folder.pending.append({name: None})
            case Told():
                pass

    def _place(self, path: str) -> tuple[Folder, str]:
        """The folder in which a path is, and its name there."""
        folder = self.root
        *parents, name = PurePosixPath(path).parts
        for parent in parents:
            child = folder.names()[parent]
            if not isinstance(child, Folder):
                raise ValueError(f"{path} is below a file")
            folder = child
        return folder, name

    def _file(self, path: str, work: Callable[[File], None]) -> None:
        """Works on the file of a path; one that was removed while it was open is of no interest."""
        folder, name = self._place(path)
        file = folder.names().get(name)
        if isinstance(file, File):
            work(file)

    def _sync(self, path: str, failed: bool) -> None:
        if path:
            folder, name = self._place(path)
            node = folder.names().get(name)
        else:
            node = self.root
        if isinstance(node, File):
            node.fail_to_sync() if failed else node.sync()
        elif node is not None and not failed:
            node.sync()

    def _rename(self, old: str, new: str) -> None:
        source, old_name = self._place(old)
        target, new_name = self._place(new)
        node = source.names()[old_name]
        if source is target:
            source.pending.append({old_name: None, new_name: node})
        else:
            raise ValueError(f"{old} was moved to another folder, which nothing here understands")

    def after_a_power_cut(self, chosen: random.Random) -> "Left":
        """What one power cut leaves."""
        return Left(chosen).of(self.root)


class Left:
    """Chooses what is left: bytes by relative path, None for a folder."""

    def __init__(self, chosen: random.Random) -> None:
        self._chosen = chosen
        # Most often a disk had done nearly all, or nearly nothing, of what it was told.
        self._share = chosen.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        self.files: dict[str, bytes | None] = {}

    def of(self, root: Folder) -> "Left":
        """What is left of a folder and of all in it."""
        self._folder(root, "")
        return self

    def put(self, path: Path) -> None:
        """Writes it to a folder."""
        path.mkdir(parents=True)
        for name, data in self.files.items():
            if data is None:
                (path / name).mkdir()
            else:
                (path / name).write_bytes(data)

    def _folder(self, folder: Folder, prefix: str) -> None:
        changes = self._chosen.choice((0, len(folder.pending), self._chosen.randint(0, len(folder.pending))))
        for name, node in folder.names(changes).items():
            path = prefix + name
            if isinstance(node, Folder):
                self.files[path] = None
                self._folder(node, f"{path}/")
            else:
                self.files[path] = self._bytes(node)

    def _bytes(self, file: File) -> bytes:
        data = bytearray(file.kept)
        for change, is_sure in file.unsure:
            for part in [change] if is_sure else self._torn(change):
                apply(data, part)
        for change in self._some(file.pending):
            apply(data, change)
        return bytes(data)

    def _some(self, changes: list[Change]) -> Iterator[Change]:
        """Some of the changes of a file, torn."""
        how = self._chosen.choice(("none", "all", "first", "any", "torn"))
        if how == "first":
            done = self._chosen.randint(0, len(changes))
            yield from changes[:done]
            changes, how = changes[done : done + 1], "torn"
        for change in changes:
            if how == "all" or (how == "any" and self._chosen.random() < self._share):
                yield change
            elif how == "torn":
                yield from self._torn(change)

    def _torn(self, change: Change) -> Iterator[Change]:
        """Some sectors of a write, of which the file may have got the size all the same."""
        if isinstance(change, Cut):
            if self._chosen.random() < self._share:
                yield change
            return
        end = change.offset + len(change.data)
        at = change.offset
        while at < end:
            after = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if self._chosen.random() < self._share:
                yield Written(change.path, at, change.data[at - change.offset : after - change.offset])
            at = after
        if self._chosen.random() < self._share:
            yield Written(change.path, end, b"")
