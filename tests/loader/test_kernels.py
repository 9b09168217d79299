"""Kernels refuse what does not fit, before they write; maps are what they say."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import needs_kernels

from mixstream.kernels import native

pytestmark = needs_kernels


def words(count, value=0):
    return np.full(count, value, dtype=np.int64)


def draw(**change):
    given = {
        "shape": (2, 1, 3),
        "counts": words(6),
        "owed": words(3),
        "shares": words(3),
        "used": words(3),
        "drawn": words(3),
        "totals": words(3),
        "limits": words(3),
        "lane_limits": words(3),
        "batch_size": 4,
        "lookahead": 512,
    }
    return native.draw(*(given | change).values())


@pytest.mark.parametrize("name", ["counts", "owed", "shares", "used", "drawn", "totals", "limits", "lane_limits"])
@pytest.mark.parametrize("count", [0, 2, 7])
def test_draw_refuses_an_array_of_another_size(name, count):
    with pytest.raises(ValueError, match=rf"^{name} has {8 * count} bytes, expected [36] of 8"):
        draw(**{name: words(count)})


def test_draw_refuses_what_is_no_shape():
    assert draw() == 0
    for change in ({"shape": (2, 0, 3)}, {"shape": (-1, 1, 3)}, {"shape": (1 << 40, 1 << 40, 3)}):
        with pytest.raises(ValueError, match="no shape of counts"):
            draw(**change)
    for change in ({"batch_size": 0}, {"lookahead": -1}):
        with pytest.raises(ValueError, match="out of range"):
            draw(**change)


def test_place_refuses_counts_and_cursors_that_lead_beyond_the_rows():
    def place(counts, cursors):
        out = [words(4) for _ in range(3)]
        native.place((1, 1, 2), np.array(counts), np.array(cursors), words(4), words(4), 0, 7, *out)

    place([1, 3], [0, 1])
    for counts in ([1, 2], [1, 4], [-1, 5], [1 << 62, 1 << 62]):
        with pytest.raises(ValueError, match="counts do not add up"):
            place(counts, [0, 1])
    for cursors in ([0, 2], [-1, 1]):
        with pytest.raises(ValueError, match="a cursor is beyond the rows"):
            place([1, 3], cursors)


@pytest.mark.parametrize(("first", "size", "a", "b", "pieces"), [(0, 10, 3, 3, 1), (9, 10, 4, 3, 1), (0, 10, 4, 3, 0)])
def test_a_window_refuses_places_outside(first, size, a, b, pieces):
    with pytest.raises(ValueError, match="places outside the window"):
        native.window_rows(words(2), first, size, a, b, 5, words(pieces, 10), words(pieces))


def table(data, offsets):
    shard = np.array([1], np.uint8)
    return (
        np.array([0, 1]),
        np.array([0, 3]),
        words(1, data.ctypes.data),
        words(1, offsets.ctypes.data),
        shard,
    )


@pytest.mark.parametrize(("stream", "sample"), [(0, 3), (0, -1), (1, 0), (-1, 0), (1 << 62, 0), (0, 1 << 62)])
def test_gather_refuses_a_sample_that_is_not_there(stream, sample):
    data, offsets = np.arange(12, dtype=np.uint16), np.array([0, 8, 16])
    known = *table(data, offsets), words(1), 1, 1, 4
    out = words(8)
    assert native.gather(*known, words(2), np.array([0, 2]), words(2), out, words(0), 257) == -1
    assert out.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    with pytest.raises(IndexError, match=f"stream {stream} has no sample {sample}"):
        native.gather(*known, words(1, stream), words(1, sample), words(1), words(4), words(0), 257)
    with pytest.raises(ValueError, match="out has 24 bytes, expected 4 of 8"):
        native.gather(*known, words(1), words(1), words(1), words(3), words(0), 257)


def test_a_map_outlives_its_name_and_refuses_what_is_no_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    mapped = np.frombuffer(native.map_file(file, 3), np.uint8)
    file.unlink()
    assert bytes(mapped) == b"abc"
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1
    with pytest.raises(OSError, match="No such file"):
        native.map_file(file, 3)
    with pytest.raises(OSError, match="No such device"):
        native.map_file(tmp_path, tmp_path.stat().st_size)
    file.write_bytes(b"")
    with pytest.raises(OSError, match="Invalid argument"):
        native.map_file(file, 0)
    with pytest.raises(OSError, match="0 bytes, expected 5"):
        native.map_file(file, 5)
