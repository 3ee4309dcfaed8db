"""Docs by their keys, many at a time: where the terms and the entries lead to."""

import json
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import apsw

from auditplane.store.sqlite import block
from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.block import Header
from auditplane.store.sqlite.database import fetch, one
from auditplane.store.sqlite.shown import Shown
from auditplane.store.sqlite.statements import KEY_MAX, QUERIES
from auditplane.zstd import decompress

KEYS_AT_ONCE: Final = 128
LOADED_BYTES_MAX: Final = 4 * 1024 * 1024


class _Place(NamedTuple):
    """Where a sealed event stands: its frame, the line in it, and about how large the frame's text is.

    `entry` is its index, where that matters: it may not be shown, or its key may have been used again.
    """

    frame_id: int
    line: int
    frame_bytes: int
    entry: int | None


class Finder:
    """Finds docs in one view, of events that are shown."""

    def __init__(self, store: AccountStore, connection: apsw.Connection, shown: Shown) -> None:
        self._store, self._connection, self._shown = store, connection, shown
        self._runs = [row[0] for row in fetch(connection, QUERIES["runs"])]
        low = one(connection, QUERIES["tail_low"])
        self._tail_low: int = KEY_MAX if low is None else low
        self._indexes: dict[int, Sequence[int]] = {}

    def docs(self, keys: Sequence[int], first: int | None = None) -> Iterator[bytes | None]:
        """The doc at each of some keys, None where there is none to show.

        With `first` only docs whose indexes follow each other from there on: the key of an event that is gone
        may be that of a later one.
        """
        for start in range(0, len(keys), KEYS_AT_ONCE):
            yield from self._docs(
                keys[start : start + KEYS_AT_ONCE], None if first is None else first + start
            )

    def _docs(self, keys: Sequence[int], first: int | None) -> Iterator[bytes | None]:
        places = self._places(keys)
        texts: dict[int, bytes] = {}
        for at, key in enumerate(keys):
            wanted = None if first is None else first + at
            place = places.get(key)
            if place is None:
                yield self._in_tail(key, wanted) if key >= self._tail_low else None
                continue
            if place.entry is not None and wanted not in (None, place.entry):
                yield None
                continue
            if place.frame_id not in texts:
                texts = self._load([places[key] for key in keys[at:] if key in places])
            doc = block.nth(texts[place.frame_id], place.line)
            yield doc if place.entry is None or self._shown.event(place.entry, doc) else None

    def _in_tail(self, key: int, wanted: int | None) -> bytes | None:
        for index, doc, _ in fetch(self._connection, QUERIES["tail_at"], (key,)):
            if wanted in (None, index) and self._shown.event(index, doc):
                return bytes(doc)
        return None

    def _places(self, keys: Sequence[int]) -> dict[int, _Place]:
        """Where the events stand that are sealed and shown."""
        places: dict[int, _Place] = {}
        wanted = json.dumps(keys)
        for run in self._runs:
            for key, *row in fetch(self._connection, QUERIES["blocks_of"], (wanted, run)):
                header = Header(*row)
                line = block.line_of(self._store.block_keys(self._connection, header.id), key)
                if line is None:
                    continue
                index = None if self._shown.whole(header) else self._index(header, line)
                if index is None or self._shown.may_show(index):
                    frame_bytes = header.docs_bytes * block.FRAME_EVENTS // header.count
                    places[key] = _Place(*block.frame_of(header.id, line), frame_bytes, index)
        return places

    def _index(self, header: Header, line: int) -> int:
        indexes = self._indexes.get(header.id)
        if indexes is None:
            data = self._store.data(self._connection, "block_indexes", header.id)
            indexes = self._indexes[header.id] = block.unpack_numbers(data)
        return indexes[header.count - 1 - line]

    def _load(self, places: Sequence[_Place]) -> dict[int, bytes]:
        """The texts of the frames of some places, of the first for certain, of LOADED_BYTES_MAX in all."""
        wanted: set[int] = set()
        room = LOADED_BYTES_MAX
        for place in places:
            if place.frame_id not in wanted:
                if room <= 0:
                    break
                room -= place.frame_bytes
                wanted.add(place.frame_id)
        rows = fetch(self._connection, QUERIES["frames_in"], (json.dumps(list(wanted)),))
        if len(rows) != len(wanted):
            raise self._store.lacks(f"one of the frames {sorted(wanted)}")
        return {frame_id: decompress(data) for frame_id, data in rows}
