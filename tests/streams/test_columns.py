"""The reader of all columns equals streaming's on every encoding, and refuses values that are damaged."""

from __future__ import annotations

import decimal
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from mixstream.errors import ShardError, StreamError
from mixstream.streams.columns import DECODERS, find_decoder
from mixstream.streams.reader import MdsReader

SCALARS = [name for name in DECODERS if name.rstrip("0123456789") in ("uint", "int", "float") and name != "int"]
SIDES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def images(modes=("L", "RGB", "RGBA", "CMYK", "1", "I", "F", "LA", "HSV")):
    def make(mode, width, height, seed):
        pixels = np.random.default_rng(seed).integers(0, 255, 16 * width * height).astype(np.uint8).tobytes()
        return Image.frombytes(mode, (width, height), pixels[: len(Image.new(mode, (width, height)).tobytes())])

    return st.builds(make, st.sampled_from(modes), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))


def jpeg_bytes(image):
    from streaming.base.format.mds.encodings import mds_encode

    return mds_encode("jpeg", image)


PHOTOS = images(("L", "RGB"))
VALUES = {
    "bytes": st.binary(),
    "str": st.text(),
    "int": st.integers(-(2**63), 2**63 - 1),
    **{name: hnp.from_dtype(np.dtype(name), allow_nan=False) for name in SCALARS},
    "str_int": st.integers(),
    "str_float": st.floats(allow_nan=False),
    "str_decimal": st.decimals(allow_nan=False),
    "json": JSON,
    "ndarray": st.sampled_from(SCALARS).flatmap(lambda name: hnp.arrays(name, SIDES)),
    **{f"ndarray:{name}": hnp.arrays(name, SIDES) for name in SCALARS},
    **{f"ndarray:{name}:3,2": hnp.arrays(name, (3, 2)) for name in SCALARS},
    "pil": images(),
    "jpeg": PHOTOS,
    "png": images(("L", "RGB", "RGBA")),
    "list[pil]": st.lists(images(), max_size=3),
    "list[jpeg]": st.lists(PHOTOS, max_size=3),
    "list[png]": st.lists(PHOTOS, max_size=3),
    "jpeg_array": st.lists(PHOTOS.map(jpeg_bytes), min_size=1, max_size=3),
    "jpegarray": st.lists(PHOTOS.map(jpeg_bytes), min_size=1, max_size=3),
    "pkl": JSON,
}


def plain(value):
    """Return a value as something that compares whole: type, shape and content."""
    if isinstance(value, Image.Image):
        return type(value).__name__, value.mode, value.size, value.tobytes()
    if isinstance(value, np.ndarray | np.generic):
        return type(value).__name__, value.dtype, value.shape, value.tobytes()
    if isinstance(value, list):
        return [plain(element) for element in value]
    return type(value).__name__, value


def test_the_values_are_of_every_encoding_that_streaming_knows():
    from streaming.base.format.mds.encodings import get_mds_encodings

    assert {encoding.partition(":")[0] for encoding in VALUES} == get_mds_encodings()
    assert {*DECODERS, "ndarray", "pkl"} == get_mds_encodings()


@pytest.mark.parametrize("encoding", VALUES)
@settings(max_examples=20)
@given(data=st.data())
def test_every_encoding_is_decoded_as_streaming_decodes_it(encoding, data):
    from streaming.base.format.mds.encodings import mds_decode, mds_encode

    value = data.draw(VALUES[encoding])
    written = mds_encode(encoding, value)
    theirs = plain(mds_decode(encoding, written))
    assert plain(find_decoder(encoding, allow_pickle=True)(memoryview(written))) == theirs


@settings(max_examples=20)
@given(data=st.data(), encodings=st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=5))
def test_rows_of_any_columns_equal_streamings(tmp_path_factory, data, encodings):
    from streaming import MDSWriter
    from streaming.base.format import reader_from_json

    directory = tmp_path_factory.mktemp("mixed") / "mds"
    columns = {f"column {i}": encoding for i, encoding in enumerate(encodings)}
    rows = data.draw(
        st.lists(st.fixed_dictionaries({n: VALUES[e] for n, e in columns.items()}), min_size=1, max_size=4)
    )
    rows *= 12
    with MDSWriter(out=str(directory), columns=columns, size_limit=1 << 14) as writer:
        for row in rows:
            writer.write(row)
    entries = json.loads((directory / "index.json").read_text())["shards"]
    readers = [reader_from_json(str(directory), "", entry) for entry in entries]
    theirs = [reader.decode_sample(reader.get_sample_data(i)) for reader in readers for i in range(reader.samples)]
    ours = MdsReader.open(directory, allow_pickle=True)
    assert len(ours) == len(theirs) == len(rows)
    for row, expected in enumerate(theirs):
        told = [(name, plain(value)) for name, value in expected.items()]
        assert [(name, plain(value)) for name, value in ours[row].items()] == told
        assert [(name, plain(value)) for name, value in ours[row - len(rows)].items()] == told
    assert len(list(ours)) == len(rows)
    with pytest.raises(IndexError, match=f"row {len(rows)} of {len(rows)}"):
        ours[len(rows)]


def write(directory, encoding, values):
    from streaming import MDSWriter

    with MDSWriter(out=str(directory), columns={"x": encoding, "n": "int"}) as writer:
        for value in values:  # bytes are written into any column as they are
            writer.write({"x": value, "n": 7})
    return directory


def test_pickle_is_refused_by_name_unless_allowed(tmp_path):
    directory = write(tmp_path / "a", "pkl", [{"a": 1}])
    with pytest.raises(StreamError, match=r"column 'x': encoding 'pkl' runs any code .* allow_pickle=True"):
        MdsReader.open(directory)
    assert MdsReader.open(directory, allow_pickle=True)[0] == {"x": {"a": 1}, "n": 7}


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("strr", "unknown encoding 'strr'; did you mean 'str'"),
        ("str:5", "unknown encoding 'str:5'"),
        ("ndarray:complex64", "expected ndarray, ndarray:DTYPE or ndarray:DTYPE:SHAPE"),
        ("ndarray:uint8:0", "unknown encoding 'ndarray:uint8:0'"),
        ("ndarray:uint8:", "unknown encoding 'ndarray:uint8:'"),
        ("ndarray::4", "unknown encoding 'ndarray::4'"),
        ("ndarray:uint8:4,x", "unknown encoding"),
    ],
)
def test_unknown_encodings_are_refused(encoding, message):
    with pytest.raises(StreamError, match=message):
        find_decoder(encoding)


U4 = (4).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("encoding", "damaged", "message"),
    [
        ("str", b"\xff\xfe", "can't decode byte 0xff"),
        ("json", b'{"a": ', "Expecting value"),
        ("json", b"[" * 100_000, "JSON of too many levels"),
        ("str_int", b"12x", "invalid literal for int"),
        ("str_float", b"1.5.5", "could not convert string to float"),
        ("str_decimal", b"one", "'one' is no decimal number"),
        ("ndarray", b"", "array of unknown type ''"),
        ("ndarray", b"\x07\x04\x01\x00", "array of unknown type '07'"),
        ("ndarray", b"\x08", "array without a shape"),
        ("ndarray:uint16", b"\x04", "0 bytes, expected 1"),
        ("ndarray:uint16", b"\x04\x03\x01\x01", r"array of shape \(3,\) and type uint16 in 2 bytes"),
        ("ndarray:uint16", b"\x04\x00", r"array of shape \(0,\)"),
        ("ndarray:uint16", b"\x00", r"array of shape \(\)"),
        ("ndarray:uint16", b"\x07" + b"\xff" * 8, r"array of shape \(18446744073709551615,\)"),
        ("pil", b"\x01", "image in 1 bytes"),
        ("pil", U4 * 3 + b"what" + b"x" * 16, "no image|unrecognized image mode"),
        ("pil", U4 * 2 + b"\x01\0\0\0" + b"L" + b"x" * 15, "not enough image data"),
        ("pil", U4 * 2 + b"\x01\0\0\0" + b"L" + b"x" * 17, "image of 4 x 4 L in 17 bytes"),
        ("pil", b"\xff" * 8 + b"\x01\0\0\0" + b"L", "image of 4294967295 x 4294967295 in 0 bytes"),
        ("jpeg", b"GIF89a", "no image: cannot identify"),
        ("png", b"\x89PNG\r\n\x1a\n", "no image"),
        ("list[png]", b"\0\0\0", "list in 3 bytes"),
        ("list[png]", b"\0\0\0\0" + U4 + b"\0", "list of 4 elements in 9 bytes"),
        ("list[pil]", b"\0\0\0\0\0\0\0\0x", "list ends after 8 of 9 bytes"),
        ("jpegarray", b"\x01\0\0\0" + U4 + b"ab", "2 bytes, expected 4"),
        ("pkl", b"\x80\x04.", "cannot be unpickled"),
    ],
)
def test_a_damaged_value_is_told_with_file_row_and_column(tmp_path, encoding, damaged, message):
    directory = write(tmp_path / "a", encoding, [b"whatever", damaged])
    with pytest.raises(
        ShardError, match=rf"shard.00000.mds: row 1, column 'x' \({encoding.replace('[', '.')[:4]}.*{message}"
    ):
        MdsReader.open(directory, allow_pickle=True)[1]


@pytest.mark.parametrize("encoding", ["int", *SCALARS, "ndarray:uint16:3,2"])
def test_a_value_of_the_wrong_size_is_refused(encoding):
    value = b"x" * 17
    with pytest.raises(ValueError, match=r"17 bytes, expected|in 17 bytes"):
        find_decoder(encoding)(memoryview(value))


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_an_image_cut_short_is_refused(encoding):
    from streaming.base.format.mds.encodings import mds_encode

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8).astype(np.uint8))
    written = mds_encode(encoding, picture)
    with pytest.raises(ValueError, match="no image"):
        find_decoder(encoding)(memoryview(written[: len(written) // 2]))


def test_arrays_are_views_of_the_file(tmp_path):
    directory = write(tmp_path / "a", "ndarray:uint16:4", [np.arange(4, dtype=np.uint16)] * 2)
    array = MdsReader.open(directory)[1]["x"]
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_decimals_that_stand_for_no_number_are_read_as_streaming_reads_them():
    assert find_decoder("str_decimal")(memoryview(b"NaN")).is_nan()
    assert find_decoder("str_decimal")(memoryview(b"-Infinity")) == decimal.Decimal("-Infinity")
    assert np.isnan(find_decoder("str_float")(memoryview(b"nan")))
