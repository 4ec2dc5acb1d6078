"""Images from a user's file: idx as MNIST has it, gzipped or not, npz and npy; what is broken is named in a sentence."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from problems.images import binarised_images, load_images

PIXELS = np.random.default_rng(3).integers(0, 256, (5, 4, 3), dtype=np.uint8)


def idx(array, code=0x08):
    """The bytes of an idx file, written by hand."""
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


@pytest.fixture
def files(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(PIXELS))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS)))
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(PIXELS[:, 0, 0]))
    np.savez(tmp_path / "mnist.npz", x_train=PIXELS, y_train=PIXELS[:, 0, 0])
    np.savez_compressed(tmp_path / "both.npz", x_train=PIXELS, x_test=PIXELS[:2])
    np.save(tmp_path / "plain.npy", PIXELS)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "mnist.npz", "both.npz:x_train", "plain.npy"]
)
def test_every_format_gives_the_same_rows(files, name):
    assert np.array_equal(load_images(files / name), PIXELS.reshape(5, 12))
    bits = binarised_images(str(files / name), rows=3)
    assert bits.dtype == torch.float64
    assert np.array_equal(bits.numpy(), PIXELS[:3].reshape(3, 12) > 127.5)


@pytest.mark.parametrize(("code", "dtype"), [(0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")])
def test_every_type_of_idx(tmp_path, code, dtype):
    array = (PIXELS.reshape(5, 12) / 3).astype(dtype)
    (tmp_path / "file").write_bytes(idx(array, code))
    assert np.array_equal(load_images(tmp_path / "file"), array)


@pytest.mark.parametrize(("dtype", "brightest"), [("u1", 255), ("u2", 65535), ("f4", 1.0), ("f8", 1.0)])
def test_the_threshold_is_a_part_of_the_brightest_possible(tmp_path, dtype, brightest):
    shades = np.array([[0.0, 0.2, 0.4, 0.6, 1.0]])
    np.save(tmp_path / "shades.npy", (shades * brightest).astype(dtype))
    assert binarised_images(tmp_path / "shades.npy").tolist() == [[0, 0, 0, 1, 1]]
    assert binarised_images(tmp_path / "shades.npy", threshold=0.3).tolist() == [[0, 0, 1, 1, 1]]


def test_bits_stay_bits(tmp_path):
    np.save(tmp_path / "bits.npy", PIXELS > 100)
    assert np.array_equal(binarised_images(tmp_path / "bits.npy").numpy(), (PIXELS > 100).reshape(5, 12))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere.npz", r"there is no file .*nowhere\.npz$"),
        ("labels-idx1-ubyte", r"an array of shape \(5,\) holds no images"),
        ("both.npz", r"several arrays of images \(x_train, x_test\); say which, as .*both\.npz:x_train$"),
        ("both.npz:y", r"has no array 'y'; it has x_train, x_test$"),
    ],
)
def test_what_is_not_there_is_named(files, name, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_images(files / name)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        load_images(tmp_path)


def test_more_than_fits_is_refused(files, monkeypatch):
    """As a small file that unpacks to more than there is memory."""

    def full(content):
        raise MemoryError

    monkeypatch.setattr(gzip, "decompress", full)
    with pytest.raises(ValueError, match=r"idx3-ubyte\.gz cannot be read: it is too large"):
        load_images(files / "train-images-idx3-ubyte.gz")


def test_more_images_than_there_are(files):
    with pytest.raises(ValueError, match="7 images are asked for; it holds 5"):
        binarised_images(files / "plain.npy", rows=7)


def test_what_is_cut_off_or_too_long_is_named(tmp_path):
    for content in (idx(PIXELS)[:-1], idx(PIXELS) + b"\0"):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"is broken: its header says 5 x 4 x 3 entries, 60 bytes, and (59|61) follow"
        ):
            load_images(tmp_path / "file")


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "objects.npz", x=np.array([[{}, []]], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_images(tmp_path / "objects.npz")


def test_what_is_not_finite_is_refused(tmp_path):
    np.save(tmp_path / "file.npy", np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match="not all of its entries are finite"):
        load_images(tmp_path / "file.npy")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(st.data())
def test_a_damaged_file_gives_images_or_a_sentence(files, data):
    """Bytes changed, cut out or put in anywhere: never anything but an array or a ValueError."""
    name = data.draw(
        st.sampled_from(["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "both.npz", "plain.npy"])
    )
    content = bytearray((files / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    (files / "damaged").write_bytes(bytes(content))
    found = ""
    try:
        assert load_images(files / "damaged").ndim == 2
    except ValueError as error:
        found = str(error)
    assert "\n" not in found
