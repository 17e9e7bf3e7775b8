"""Image files as other programs write them: read as they are shown, or refused by name."""

import struct
import subprocess
import zlib

import numpy as np
import pytest
from helpers import drawn
from PIL import Image, TiffImagePlugin

from data.errors import FileError, InputError
from data.io.images import read_image, read_map, read_mask, size_of
from data.io.reading import Reading
from data.preprocess.window import LUNG, Window

HU = drawn(0)[0]
GRAY = np.arange(48 * 32, dtype=np.uint8).reshape(48, 32)


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_orientation_as_viewers_show_it(tmp_path, orientation, suffix):
    """EXIF says how stored rows and columns are shown."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = {
        1: GRAY, 2: GRAY[:, ::-1], 3: GRAY[::-1, ::-1], 4: GRAY[::-1], 5: GRAY.T, 6: np.rot90(GRAY, -1),
        7: GRAY.T[::-1, ::-1], 8: np.rot90(GRAY),
    }[orientation]  # fmt: skip
    path = saved(tmp_path / f"a.{suffix}", GRAY, exif=exif)
    assert np.array_equal(np.asarray(read_image(path)), shown) and size_of(path) == shown.shape[::-1]
    mask = saved(tmp_path / f"m.{suffix}", (GRAY > 200) * np.uint8(255), exif=exif)
    assert np.array_equal(np.asarray(read_mask(mask)), shown > 200)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_tiff_with_white_as_zero(tmp_path, kind):
    gray = GRAY.astype(kind) * (257 if kind is np.uint16 else 1)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    path = tmp_path / "white.tif"
    Image.fromarray(gray).save(path, tiffinfo=tags)
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0
        as_shown = np.asarray(image) if kind is np.uint8 else 65535 - np.asarray(image)
    assert np.array_equal(np.asarray(read_image(path)), as_shown // (257 if kind is np.uint16 else 1))


def test_colours_that_can_not_be_converted(tmp_path):
    path = tmp_path / "lab.tif"
    Image.new("LAB", (8, 8)).save(path)
    with pytest.raises(FileError, match=r"lab\.tif: has colours that can't be converted \(LAB\)"):
        read_image(path)
    for mode in ("CMYK", "RGBA", "LA", "P"):
        Image.fromarray(GRAY).convert(mode).save(path := tmp_path / f"{mode}.tif")
        assert np.abs(np.asarray(read_image(path)).astype(int) - GRAY).max() <= 2, mode


def test_what_would_be_read_with_less_than_it_has_is_refused(tmp_path):
    path = tmp_path / "rgb16.png"
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(7))), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(FileError, match="colours of 16 bits, of which 8 would be lost"):
        read_image(path)
    palette = Image.fromarray((GRAY > 99).astype(np.uint8), "P")
    palette.putpalette([0] * 768)
    palette.save(tmp_path / "black.png")
    with pytest.raises(FileError, match="two palette entries of one colour"):
        read_mask(tmp_path / "black.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(FileError, match="is empty"):
        read_image(tmp_path / "empty.png")


def test_a_map_in_the_transparency_of_one_colour(tmp_path):
    red = np.zeros((*GRAY.shape, 4), np.uint8)
    red[..., 0], red[..., 3] = 255, GRAY
    Image.fromarray(red).save(tmp_path / "red.png")
    assert np.array_equal(read_map(tmp_path / "red.png"), GRAY)
    with pytest.raises(FileError, match="soft transparency"):
        read_mask(tmp_path / "red.png")


def test_only_the_documented_formats_are_opened(tmp_path):
    """An EPS would start Ghostscript."""
    script = tmp_path / "script.png"
    script.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    gif = tmp_path / "gif.png"
    Image.fromarray(GRAY).save(gif, format="GIF")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", None)
        for path in (script, gif):
            with pytest.raises(FileError, match=rf"{path.name}: not a readable image"):
                read_image(path)


def test_a_limit_of_pixels(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", GRAY)
    monkeypatch.setenv("CARES_UNET_MAX_PIXELS", "1000")
    with pytest.raises(FileError, match=r"a\.png: too large \(32x48\); .*1000 pixels .*CARES_UNET_MAX_PIXELS"):
        read_image(path)
    monkeypatch.setenv("CARES_UNET_MAX_PIXELS", "1536")
    assert read_image(path).size == (32, 48)
    monkeypatch.delenv("CARES_UNET_MAX_PIXELS")
    vast = tmp_path / "vast.png"
    Image.new("1", (13300, 13300)).save(vast)
    with pytest.raises(FileError, match=r"vast\.png: too large \(13300x13300\)"):
        read_image(vast)


@pytest.mark.parametrize("offset", [0, 1024, 32768])
def test_slices_in_hounsfield_units(tmp_path, offset):
    kind = np.int32 if offset == 0 else np.uint16  # Pillow writes signed TIFF with 32 bits
    suffix = "tif" if offset == 0 else "png"
    files = [saved(tmp_path / f"{k}.{suffix}", (hu + offset).astype(kind)) for k, hu in enumerate(HU)]
    reading = Reading().for_slices(files)
    assert reading.hu_offset == offset
    for path, hu in zip(files, HU, strict=True):
        assert np.array_equal(np.asarray(read_image(path, reading)), LUNG.to_gray(hu))
    wide = Reading(window=Window(0, 2000), hu_offset=offset).for_slices(files)
    assert np.array_equal(np.asarray(read_image(files[0], wide)), Window(0, 2000).to_gray(HU[0]))


@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_windowed_slices_are_not_taken_for_hounsfield_units(tmp_path, top):
    share = np.clip((HU - LUNG.level) / LUNG.width + 0.5, 0, 1)
    files = [saved(tmp_path / f"{k}.png", np.round(part * top).astype(np.uint16)) for k, part in enumerate(share)]
    assert Reading().for_slices(files).hu_offset is None


def test_floats(tmp_path):
    share = np.clip((HU[0] - LUNG.level) / LUNG.width + 0.5, 0, 1).astype(np.float32)
    for values in (share, share * np.float32(1.0000002) - np.float32(1e-8), 255 * share):
        path = saved(tmp_path / "a.tif", values)
        assert np.abs(np.asarray(read_image(path)).astype(int) - LUNG.to_gray(HU[0])).max() <= 1
    with pytest.raises(FileError, match="NaN"):
        read_image(saved(tmp_path / "nan.tif", np.full((4, 4), np.nan, np.float32)))


def test_masks_that_are_nearly_of_two_values(tmp_path):
    lesion = GRAY > 200
    path = saved(tmp_path / "float.tif", lesion * np.float32(0.9999999))
    assert np.array_equal(np.asarray(read_mask(path)), lesion)
    soft = saved(tmp_path / "soft.tif", GRAY / np.float32(255))
    with pytest.raises(InputError, match=r"soft\.tif: not a mask .*fractions from 0 to 1\); .*--mask_threshold"):
        read_mask(soft)
    smooth = saved(tmp_path / "smooth.png", GRAY)
    with pytest.raises(InputError, match=r"smooth\.png: not a mask .*--mask_threshold 0\.5"):
        read_mask(smooth)
    for path in (soft, smooth):
        assert np.array_equal(np.asarray(read_mask(path, Reading(mask_threshold=0.5))), GRAY > 127)
    red = np.full((*GRAY.shape, 3), 255, np.uint8)
    red[lesion] = (255, 0, 0)
    with pytest.raises(InputError, match=r"red\.png: not a mask .*\(2 values\); store background as black"):
        read_mask(saved(tmp_path / "red.png", red))


def test_maps_a_little_beyond_their_range(tmp_path):
    lesion = GRAY > 200
    path = saved(tmp_path / "a.tif", np.where(lesion, np.float32(1.0000002), np.float32(-1e-8)))
    assert np.array_equal(read_map(path), lesion * 255)
    with pytest.raises(FileError, match=r"not a map \(floats from 0 to 1\.1\)"):
        read_map(saved(tmp_path / "b.tif", lesion * np.float32(1.1)))


def test_errors_of_the_system_are_told_as_what_they_are(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", GRAY)
    for code, advice in ((13, "change its permissions"), (24, "ulimit -n"), (5, "check the disk")):

        def fail(*arguments, code=code, **options):
            raise OSError(code, "reason", str(path))

        monkeypatch.setattr(Image, "open", fail)
        with pytest.raises(FileError, match=rf"a\.png: can't be read \(reason\); .*{advice}"):
            read_image(path)
