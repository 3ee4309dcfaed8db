from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import rfc6962
from auditplane.errors import ProofError
from auditplane.merkle import inclusion_path, root
from auditplane.tiles import (
    ENTRIES,
    Tile,
    entry_bundle,
    parse_entry_bundle,
    parse_tile_path,
    tile_nodes,
    tile_path,
    tile_width,
    tiles_of,
)

SIZE = 70_000  # The example of tlog-tiles.
TREE = rfc6962.Tree([sha256(b"%d" % index).digest() for index in range(SIZE)])

levels = st.integers(0, 63) | st.just(ENTRIES)
widths = st.integers(1, 256)


class Store:
    """The tiles of a log; it counts how often each was read."""

    def __init__(self) -> None:
        self.read: list[Tile] = []

    def __call__(self, tile: Tile) -> bytes:
        self.read.append(tile)
        return b"".join(TREE.node(8 * tile.level, tile.n * 256 + i) for i in range(tile.width))


def test_the_example_of_the_standard() -> None:
    found = list(tiles_of(SIZE))
    assert found[:274] == [*(Tile(0, n, 256) for n in range(273)), Tile(0, 273, 112)]
    assert found[274:] == [Tile(1, 0, 256), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(tiles_of(256)) == [Tile(0, 0, 256), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == []


@given(st.integers(0, 1 << 20))
@example(255)
@example(256)
@example(257)
@example(65_536)
def test_the_tiles_of_a_level_have_its_nodes(size: int) -> None:
    """As many as there are complete subtrees, each tile but the last one full, none empty."""
    found = list(tiles_of(size))
    for level in range(4):
        of_level = [tile for tile in found if tile.level == level]
        assert sum(tile.width for tile in of_level) == size // 256**level
        assert [tile.n for tile in of_level] == list(range(len(of_level)))
        assert all(tile.width == 256 for tile in of_level[:-1])
    assert all(tile.width == tile_width(*tile[:2], size) > 0 for tile in found)
    assert all(tile_width(level, 1 << 20, size) == 0 for level in range(4))
    assert tile_width(ENTRIES, 0, size) == tile_width(0, 0, size)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, SIZE])
def test_nodes_from_tiles_are_those_of_the_tree(size: int) -> None:
    nodes = tile_nodes(Store(), size)
    assert root(size, nodes) == TREE.root(size)
    for level in range(size.bit_length()):
        last = (size >> level) - 1
        for index in {0, last // 3, last // 2, max(last - 1, 0), last}:
            assert nodes(level, index) == TREE.node(level, index)
        with pytest.raises(ProofError, match=r"no node"):
            nodes(level, last + 1)


def test_many_proofs_read_each_tile_once() -> None:
    store = Store()
    nodes = tile_nodes(store, SIZE)
    for index in range(1000, 2000):
        assert inclusion_path(index, SIZE, nodes) == TREE.path(index, SIZE)
    assert sorted(store.read) == sorted(
        [*(Tile(0, n, 256) for n in range(3, 8)), Tile(0, 273, 112), Tile(1, 0, 256), Tile(1, 1, 17)]
    )


def test_only_so_many_tiles_are_kept() -> None:
    store = Store()
    nodes = tile_nodes(store, SIZE, kept=2)
    for n in (0, 1, 0, 2, 0, 1):
        nodes(0, 256 * n)
    assert [tile.n for tile in store.read] == [0, 1, 2, 1]


@pytest.mark.parametrize("given", [b"", bytes(32 * 111), bytes(32 * 112 + 1), bytes(32 * 256)])
def test_a_tile_of_another_width_is_refused(given: bytes) -> None:
    with pytest.raises(ProofError, match=r"tile/0/273\.p/112 has \d+ bytes"):
        tile_nodes(lambda tile: given, SIZE)(0, SIZE - 1)


# Paths.


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1_234_067), "tile/0/x001/x234/067"),
        (Tile(0, 0), "tile/0/000"),
        (Tile(63, 999, 1), "tile/63/999.p/1"),
        (Tile(1, 1000, 255), "tile/1/x001/000.p/255"),
        (Tile(ENTRIES, 273, 112), "tile/entries/273.p/112"),
    ],
)
def test_a_path_is_that_of_the_standard(tile: Tile, path: str) -> None:
    assert tile_path(*tile) == path
    assert parse_tile_path(path) == tile


@given(levels, st.integers(0, (1 << 63) - 1), widths)
def test_a_path_is_read_as_it_was_written(level: int, n: int, width: int) -> None:
    assert parse_tile_path(tile_path(level, n, width)) == Tile(level, n, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000",
        "tile/0/x000/001",
        "tile/0/001/001",
        "tile/0/x01/001",
        "tile/0/X001/001",
        "tile/0/x001//001",
        "tile/00/001",
        "tile/01/001",
        "tile/64/001",
        "tile/-1/001",
        "tile/data/001",
        "tile/0/001.p",
        "tile/0/001.p/",
        "tile/0/001.p/0",
        "tile/0/001.p/01",
        "tile/0/001.p/256",
        "tile/0/001.p/1000",
        "tile/0/001/p/1",
        "tile/0/001.P/1",
        "/tile/0/001",
        "tile/0/001/",
        "tile/0/001\n",
        "tile/0/٠٠١",
        "tile/0/" + "x001/" * 5000 + "001",
    ],
)
def test_another_path_is_none(path: str) -> None:
    assert parse_tile_path(path) is None


@given(st.text(st.sampled_from("tile/0123x.pens")) | st.text())
def test_what_is_read_would_be_written_so(text: str) -> None:
    tile = parse_tile_path(f"tile/{text}")
    assert tile is None or tile_path(*tile) == f"tile/{text}"


# Bundles.


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=20))
def test_a_bundle_has_each_entry_after_its_length(entries: list[bytes]) -> None:
    bundle = entry_bundle(b"".join(entries))
    assert bundle == b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
    assert parse_entry_bundle(bundle, len(entries)) == b"".join(entries)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=3), st.data())
def test_a_damaged_bundle_is_refused(entries: list[bytes], data: st.DataObject) -> None:
    packed = b"".join(entries)
    bundle = entry_bundle(packed)
    at = 34 * data.draw(st.integers(0, len(entries) - 1))
    longer = bundle[:at] + b"\0\x21" + bundle[at + 2 :]
    for wrong in (longer, bundle[:-1], bundle + b"\0", bundle[34:], bundle + bundle[:34], packed):
        with pytest.raises(ProofError, match=r"The bundle is not"):
            parse_entry_bundle(wrong, len(entries))


@given(st.binary(max_size=80), st.integers(0, 3))
def test_no_other_error_comes_of_any_bundle(bundle: bytes, width: int) -> None:
    try:
        packed = parse_entry_bundle(bundle, width)
    except ProofError:
        return
    assert entry_bundle(packed) == bundle
