"""Files from elsewhere: nothing of them runs, hangs, fills the memory or leaves its folder, and errors name them."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from fewstep import datasets
from fewstep.datasets import archives
from fewstep.datasets.archives import read_files
from fewstep.datasets.cache import cache_folder
from fewstep.datasets.decoding import decode
from fewstep.datasets.mini_imagenet import mini_imagenet
from fewstep.datasets.pickles import read_pickle

pytestmark = pytest.mark.usefixtures("own_cache")


def picture(file: Path, shade: int = 0, kind: str = "PNG") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(file, kind)
    return file


def photos(root: Path) -> Path:
    for name in ("cats", "dogs"):
        picture(root / name / "a.png")
    return root


# Images


def test_postscript_in_a_photo_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    root = photos(tmp_path)
    (root / "cats" / "photo.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) run showpage\n%%EOF\n"
    )
    with pytest.raises(ValueError, match=r"photo\.jpg cannot be read as an image: expected BMP, GIF, JPEG"):
        datasets.from_folder(root, 4)


def test_images_of_the_formats_are_read(tmp_path: Path):
    for kind in ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"):
        file = picture(tmp_path / "x", 200, kind)
        assert decode(file.read_bytes(), "x").size == (4, 4)


def png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [10_000, 60_000])
def test_an_image_of_too_many_pixels_is_named(size: int):
    with pytest.raises(ValueError, match=r"bomb\.png is refused, since its pixels would fill the memory"):
        decode(png_of(size, size), "bomb.png")


# Files that are no files


def test_a_named_pipe_does_not_hang(tmp_path: Path):
    os.mkfifo(photos(tmp_path) / "cats" / "b.png")
    with pytest.raises(ValueError, match=r"b\.png is a named pipe; expected a regular file"):
        datasets.from_folder(tmp_path, 4)


def test_a_link_to_a_device_is_refused(tmp_path: Path):
    (photos(tmp_path) / "cats" / "b.png").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"b\.png is a device"):
        datasets.from_folder(tmp_path, 4)
    with pytest.raises(ValueError, match="is a device"):
        list(read_files(tmp_path / "cats", ["b.png"]))


def test_links_to_files_are_followed(tmp_path: Path):
    root = photos(tmp_path / "photos")
    (root / "cats" / "b.png").symlink_to(picture(tmp_path / "elsewhere.png"))
    (root / "cats" / "folder.png").mkdir()
    assert datasets.from_folder(root, 4).counts.tolist() == [2, 1]
    (root / "cats" / "c.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(FileNotFoundError, match=r"c\.png is a link to .*nothing\.png, which does not exist"):
        datasets.from_folder(root, 4)


def test_an_archive_that_is_a_pipe_does_not_hang(tmp_path: Path):
    for name in ("a.zip", "a.tar.gz"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match="is a named pipe"):
            list(read_files(tmp_path / name, ["x"]))


# Archives


def test_a_zip_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.png", bytes(20_000))
    with pytest.raises(ValueError, match=r"a\.zip: x\.png decompresses to 20,000 bytes; expected at most 10,000"):
        list(read_files(tmp_path / "a.zip", ["x.png"]))


@pytest.mark.parametrize("wanted", ["x.png", "y.png"])
def test_a_tar_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str):
    monkeypatch.setattr(archives, "MAX_BYTES", 10_000)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for number in range(1000):  # each of them small enough
            add(archive, f"{number}.png", bytes(10_000))
        add(archive, "x.png", bytes(20_000))
    with pytest.raises(ValueError, match=r"a\.tar\.gz has .* bytes and decompresses to more than 200 times as many"):
        list(read_files(tmp_path / "a.tar.gz", [wanted]))


def add(archive: tarfile.TarFile, name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    archive.addfile(info, io.BytesIO(content))


def test_a_tar_header_of_megabytes_is_refused(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        add(archive, "h", bytes(2**20 + 1), tarfile.XHDTYPE)
    with pytest.raises(ValueError, match=r"a\.tar\.gz is damaged or truncated \(a header of 1,048,577 bytes"):
        list(read_files(tmp_path / "a.tar.gz", ["x"]))


def test_an_encrypted_zip_is_named(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.png", b"x")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.index(b"PK\x03\x04") + 6] |= 1  # the flag of encryption, in both headers
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.zip is damaged or truncated \(File .* is encrypted"):
        list(read_files(tmp_path / "a.zip", ["x.png"]))


# Names


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/b.png", "..\\secret.png"])
def test_names_in_a_table_cannot_leave_the_folder(tmp_path: Path, name: str):
    picture(tmp_path / "secret.png")
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "train.csv").write_text(f"filename,label\n{name},a\n")
    with pytest.raises(ValueError, match="expected file names without folders"):
        mini_imagenet(tmp_path / "data", "train")


def test_a_table_that_is_none_is_named(tmp_path: Path):
    (tmp_path / "images").mkdir()
    for content in (b"\xff\xfe\x00", b'filename,label\n"' + b"a" * 200_000):
        (tmp_path / "train.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"train\.csv (cannot be read as a table|must have the columns)"):
            mini_imagenet(tmp_path, "train")


# Pickles


class Calls:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def refuses(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=rf"file\.pkl cannot be read as plain data .*{why}"):
        read_pickle(content, "file.pkl")


def test_a_pickle_calls_nothing(tmp_path: Path):
    refuses(pickle.dumps(Calls(os.mkdir, str(tmp_path / "made"))), "it calls .*mkdir")
    assert not (tmp_path / "made").exists()


def test_a_pickle_sets_no_attributes():
    # (None, {"__defaults__": ...}) as the state of a function that is admitted
    poison = b"\x80\x02c_codecs\nencode\n(N}X\x0c\x00\x00\x00__defaults__X\x01\x00\x00\x00x\x85stb."
    refuses(poison, "it sets attributes")
    refuses(b"\x80\x02cnumpy.core.multiarray\nscalar\n(N}X\x07\x00\x00\x00__doc__X\x01\x00\x00\x00xstb.", "it sets")
    refuses(b"\x80\x02cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb.", "it sets attributes")


def test_extensions_of_copyreg_are_closed():
    copyreg.add_extension("os", "getcwd", 240)
    try:
        pickle.loads(b"\x80\x02\x82\xf0.")  # it is in the cache of extensions now
        refuses(b"\x80\x02\x82\xf0.", "ways that plain data do not need")
    finally:
        copyreg.remove_extension("os", "getcwd", 240)


@pytest.mark.parametrize("instruction", [b"cnumpy\nndarray\n)\x81.", b"(inumpy\nndarray\n.", b"Px\n."])
def test_further_ways_to_make_objects_are_closed(instruction: bytes):
    refuses(b"\x80\x02" + instruction, "ways that plain data do not need")


def test_pickles_that_unfold_are_bounded():
    refuses(b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", "nested more than 50 deep")
    laughs = b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(40)) + b"."
    refuses(laughs, "unfolds to far more items than it has bytes")
    text = b"X" + struct.pack("<I", 10_000) + b"a" * 10_000
    encoded = b"c_codecs\nencode\nq\x00" + text + b"q\x01X\x06\x00\x00\x00latin1q\x020"
    many = b"h\x00h\x01h\x02\x86R" * 200
    refuses(b"\x80\x02(" + encoded + many + b"l.", "unfolds to far more bytes than it has")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_are_read(protocol: int):
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    content = {"data": array, "fortran": np.asfortranarray(array), "names": [b"a", ("b", None, 1.5, True)]}
    found = read_pickle(pickle.dumps(OrderedDict(content), protocol), "file.pkl")
    assert np.array_equal(found["data"], array)
    assert np.array_equal(found["fortran"], array)
    assert found["names"] == ["a", ("b", None, 1.5, True)]


# The cache


def test_folders_of_one_name_have_their_own_cache(tmp_path: Path):
    for shade, parent in ((10, "x"), (20, "y")):
        for name in ("cats", "dogs"):
            os.utime(picture(tmp_path / parent / "photos" / name / "a.png", shade), (0, 0))
    first, second = (datasets.from_folder(tmp_path / parent / "photos", 4) for parent in "xy")
    assert (int(first.images[0, 0, 0, 0]), int(second.images[0, 0, 0, 0])) == (10, 20)


def test_a_cache_is_as_open_as_its_folder(tmp_path: Path):
    cache_folder().mkdir()
    cache_folder().chmod(0o775)
    datasets.from_folder(photos(tmp_path / "photos"), 4)
    (entry,) = cache_folder().glob("folder-*")
    assert entry.stat().st_mode & 0o777 == 0o775


def test_a_cache_of_other_shapes_is_made_again(tmp_path: Path):
    root = photos(tmp_path / "photos")
    datasets.from_folder(root, 4)
    (index,) = cache_folder().glob("folder-*/index.json")
    whole = index.read_text()
    for damaged in (
        '{"shape": [-2, -4, 4, 3], "starts": [0], "classes": []}',
        "[" * 100_000,
        whole.replace("2]", "9]"),
    ):
        index.write_text(damaged)
        assert len(datasets.from_folder(root, 4)) == 2
        assert index.read_text() == whole
