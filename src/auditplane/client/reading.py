"""The log of an account, read through for a checkpoint: entries, tiles, and the events shown for them.

Whatever does not fit raises ProofError and is named.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Final, TypeVar

from auditplane import verifying
from auditplane.client.client import Client
from auditplane.errors import ProofError, Refused
from auditplane.tiles import ENTRIES, TILE_HASHES, Tile, parse_entry_bundle, tile_path
from auditplane.verifying import Reading, Shown

T = TypeVar("T")

THREADS: Final = 4
AHEAD_MAX: Final = 64


def read_log(
    client: Client, account: str, reading: Reading, size: int, report: Callable[[], None]
) -> Reading:
    """Takes up the entries of a log from where `reading` is, which is after a full tile, up to `size`.

    Where `reading.texts` is set, they are taken with the events that are shown for them. `reading` comes as
    far as there are full tiles; the one that is returned has all entries. `report` is called whenever
    `reading` has come further. After ConnectionLost and Refused it can be gone on with, after other errors
    not. Raises ProofError.
    """
    tiles = _Tiles(client, account)
    numbers = range(reading.size // TILE_HASHES, size // TILE_HASHES)
    with ExitStack() as stack:
        events = None
        if reading.texts:
            lines = stack.enter_context(closing(client.entry_lines(account, reading.size, size)))
            events = _Events(map(verifying.parse_entry_line, lines))
        steps = stack.enter_context(closing(_ahead(tiles.completed, numbers)))
        for n, (entries, served) in zip(numbers, steps, strict=True):
            shown = None if events is None else events.below((n + 1) * TILE_HASHES)
            _compare(reading.take(entries, shown), served.__getitem__)
            report()
        ended = reading.copy()
        if width := size % TILE_HASHES:
            entries = tiles.entries(Tile(ENTRIES, size // TILE_HASHES, width))
            ended.take(entries, None if events is None else events.below(size))
        _compare(ended.frontier.tiles(), tiles.hashes)
        if events is not None:
            events.end()
    return ended


def _ahead(function: Callable[[int], T], numbers: Iterable[int]) -> Generator[T, None, None]:
    """What a function gives for some numbers, in their order, made by threads ahead of who takes it."""
    waiting: deque[Future[T]] = deque()
    threads = ThreadPoolExecutor(THREADS)
    try:
        for number in numbers:
            waiting.append(threads.submit(function, number))
            if len(waiting) > AHEAD_MAX:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _completed(n: int) -> Iterator[Tile]:
    """The tiles that are full with number `n` of level 0."""
    level = 0
    while True:
        yield Tile(level, n)
        if (n + 1) % TILE_HASHES:
            return
        level, n = level + 1, (n + 1) // TILE_HASHES - 1


def _compare(tiles: Iterable[tuple[Tile, bytes]], served: Callable[[Tile], bytes]) -> None:
    for tile, hashes in tiles:
        if served(tile) != hashes:
            raise ProofError(f"{tile_path(*tile)} has other hashes than its entries.")


class _Tiles:
    """The tiles of a log, as they are served."""

    def __init__(self, client: Client, account: str) -> None:
        self._client, self._account = client, account

    def completed(self, n: int) -> tuple[bytes, dict[Tile, bytes]]:
        """The entries of number `n` of the full bundles, and the tiles that are full with it."""
        return self.entries(Tile(ENTRIES, n)), {tile: self.hashes(tile) for tile in _completed(n)}

    def entries(self, tile: Tile) -> bytes:
        """The entries of a bundle, packed."""
        try:
            return parse_entry_bundle(self.hashes(tile), tile.width)
        except ProofError as error:
            raise ProofError(f"{tile_path(*tile)}: {error}") from None

    def hashes(self, tile: Tile) -> bytes:
        """A tile; raises ProofError when there is none."""
        try:
            return self._client.tile(self._account, tile)
        except Refused as error:
            if error.may_pass or error.status != 404:
                raise
            raise ProofError(
                f"{tile_path(*tile)} is not served, though the signed checkpoint covers it: {error}"
            ) from None


class _Events:
    """The events that are shown, tile by tile."""

    def __init__(self, events: Iterator[Shown]) -> None:
        self._events = events
        self._next: Shown | None = None

    def below(self, end: int) -> list[Shown]:
        """Those that come next, up to that before the index `end`."""
        found: list[Shown] = []
        if self._next is not None:
            if self._next.index >= end:
                return found
            found.append(self._next)
            self._next = None
        for event in self._events:
            if event.index >= end:
                self._next = event
                break
            if found and event.index <= found[-1].index:
                due = found[-1].index + 1
                raise ProofError(f"An event of the index {event.index} is shown where {due} is due.")
            found.append(event)
            if event.index == end - 1:
                break
        return found

    def end(self) -> None:
        """Raises ProofError when there are more."""
        more = self._next or next(self._events, None)
        if more is not None:
            raise ProofError(
                f"An event of the index {more.index} is shown, which is beyond what was asked for."
            )
