"""Frames come back as they were made, by whichever threads, and damaged ones are told."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditplane import zstd
from auditplane.errors import Damaged

TEXT = b"a line of some length\n" * 4_000


@given(st.lists(st.binary(max_size=200)), st.sampled_from([b"\n", b",\n"]))
def test_contents_in_their_order(contents: list[bytes], line_end: bytes) -> None:
    frames = [zstd.compress(each) for each in contents]
    assert [zstd.decompress(frame) for frame in frames] == contents
    text = b"".join(zstd.decompress_all(frames, line_end))
    assert text == b"".join(contents).replace(b"\n", line_end)


def test_several_threads_at_a_time() -> None:
    """The helper is one; who finds it busy does all by itself."""
    draw = random.Random(1)
    contents = [[draw.randbytes(50_000) for _ in range(6)] for _ in range(24)]
    frames = [[zstd.compress_small(each) for each in some] for some in contents]
    with ThreadPoolExecutor(6) as threads:
        texts = list(threads.map(zstd.decompress_all, frames))
    assert [b"".join(each) for each in texts] == [b"".join(each) for each in contents]


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_damaged_frame_is_told_and_the_helper_goes_on(count: int) -> None:
    frames = [zstd.compress(random.Random(at).randbytes(40_000)) for at in range(count)]
    for at in {0, count - 1}:
        broken = bytearray(frames[at])
        broken[len(broken) // 2] ^= 1
        with pytest.raises(Damaged):
            zstd.decompress_all([*frames[:at], bytes(broken), *frames[at + 1 :]])
        with pytest.raises(Damaged):
            zstd.decompress(bytes(broken))
    assert len(b"".join(zstd.decompress_all(frames))) == count * 40_000


@pytest.mark.parametrize("size", [0, 1, 7, 12])
@pytest.mark.parametrize("others", [0, 1, 3])
def test_what_is_no_frame(size: int, others: int) -> None:
    cut, whole = zstd.compress(TEXT)[:size], zstd.compress(TEXT)
    with pytest.raises(Damaged):
        zstd.decompress(cut)
    with pytest.raises(Damaged):
        zstd.decompress_all([cut, *[whole] * others])


@pytest.mark.parametrize("count", [1, 2, 500])
def test_frames_without_content(count: int) -> None:
    """Of several the library below would corrupt the memory of the process."""
    assert b"".join(zstd.decompress_all([zstd.compress(b"")] * count)) == b""
    assert b"".join(zstd.decompress_all([zstd.compress(b""), zstd.compress(b"a")] * count)) == b"a" * count
