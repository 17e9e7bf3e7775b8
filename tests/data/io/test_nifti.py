"""NIfTI and MetaImage headers: what they say is used, told, and kept in masks."""

import gzip
import re

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from helpers import DEPTH, SIZE, drawn

from data.errors import FileError
from data.io.volumes import read_labels, read_scan, write_like

AFFINE = np.array([[-6.0, 0, 0, 190], [0, -6, 0, 170], [0, 0, 5, -1200], [0, 0, 0, 1]])
HU, LESIONS = drawn(0)


def saved(path, slices=HU, *, affine=AFFINE, kind=np.int16, sform=1, qform=1, qaffine=None, cls=nibabel.Nifti1Image):
    image = cls(np.ascontiguousarray(slices.T).astype(kind), affine)
    image.set_sform(affine, sform)
    image.set_qform(affine if qaffine is None else qaffine, qform)
    nibabel.save(image, path)
    return path


FLIPPED, TILTED = AFFINE.copy(), AFFINE.copy()
FLIPPED[0] = [6, 0, 0, -188]
TILTED[1, 2] = 1.34


@pytest.mark.parametrize(
    ("forms", "note"),
    [
        ({}, ""),
        ({"sform": 2, "qaffine": FLIPPED}, r"its sform and qform differ by up to 378\.0 mm; the sform is used"),
        ({"affine": TILTED, "qform": 0}, "slices are shifted against each other, as by a gantry tilted by 15 degrees"),
        ({"affine": TILTED, "qaffine": AFFINE}, "its sform and qform differ by up to 6"),
        ({"sform": 0}, ""),
        ({"sform": 0, "qform": 0}, "neither sform nor qform"),
    ],
)
def test_a_mask_keeps_the_header_of_its_scan(tmp_path, forms, note):
    path = saved(tmp_path / "scan.nii.gz", **forms)
    scan = read_scan(path)
    assert bool(scan.note) == bool(note) and re.search(note, scan.note)
    write_like(LESIONS.astype(np.uint8), scan, tmp_path / "mask.nii.gz")
    mask, original = (nibabel.load(p) for p in (tmp_path / "mask.nii.gz", path))
    for name in ("sform_code", "qform_code", "pixdim", "srow_x", "srow_y", "srow_z", "qoffset_x", "xyzt_units"):
        assert np.allclose(mask.header[name], original.header[name], atol=1e-5), name
    assert mask.get_data_dtype() == np.uint8
    found, note = read_labels(tmp_path / "mask.nii.gz", scan, path)
    assert np.array_equal(found, LESIONS) and note == ""


def test_a_tilted_scan_has_its_true_volume(tmp_path):
    upright, tilted = (
        read_scan(saved(tmp_path / f"{name}.nii.gz", affine=affine, qform=0)).geometry
        for name, affine in (("upright", AFFINE), ("tilted", TILTED))
    )
    assert tilted.voxel_ml == pytest.approx(upright.voxel_ml) == pytest.approx(0.18)
    assert tilted.tilt == pytest.approx(15, abs=0.1) and upright.tilt == pytest.approx(0, abs=1e-3)


def test_kinds_of_nifti(tmp_path):
    pair = saved(tmp_path / "pair.img", cls=nibabel.Nifti1Pair).with_suffix(".hdr")
    second = saved(tmp_path / "second.nii.gz", cls=nibabel.Nifti2Image)
    scaled = saved(tmp_path / "scaled.nii.gz", HU // 2 * 2, kind=np.float64)
    no_slope = saved(tmp_path / "no_slope.nii")
    whole = bytearray(no_slope.read_bytes())
    whole[112:116] = bytes(4)  # scl_slope 0: as stored
    no_slope.write_bytes(whole)
    four = saved(tmp_path / "four.nii.gz", HU[None])
    for path in (pair, second, no_slope, four):
        assert np.array_equal(read_scan(path).slices, HU), path
    assert np.array_equal(read_scan(scaled).slices, HU // 2 * 2)
    metres = nibabel.load(saved(tmp_path / "metres.nii.gz"))
    metres.header.set_xyzt_units("meter")
    metres.set_sform(np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE, 1)
    nibabel.save(metres, tmp_path / "metres.nii.gz")
    assert read_scan(tmp_path / "metres.nii.gz").geometry.voxel_ml == pytest.approx(0.18)


def test_files_that_are_refused(tmp_path):
    good = saved(tmp_path / "good.nii.gz")
    (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress(good.read_bytes()))
    (tmp_path / "packed.nii").write_bytes(good.read_bytes())
    saved(tmp_path / "complex.nii.gz", kind=np.complex64)
    colours = np.zeros(HU.T.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, AFFINE), tmp_path / "colours.nii.gz")
    saved(tmp_path / "flat.nii.gz", HU[3])
    saved(tmp_path / "zero.nii.gz", sform=1, qform=0)
    whole = bytearray(gzip.decompress((tmp_path / "zero.nii.gz").read_bytes()))
    whole[280:296] = bytes(16)  # srow_x
    with gzip.open(tmp_path / "zero.nii.gz", "wb") as file:
        file.write(bytes(whole))
    for name, says in {
        "plain.nii.gz": "is not compressed, unlike its name says; rename it to plain.nii",
        "packed.nii": "is compressed, unlike its name says; rename it to packed.nii.gz",
        "complex.nii.gz": "has no single value a voxel (complex64 numbers)",
        "colours.nii.gz": "has no single value a voxel (colours)",
        "flat.nii.gz": f"not a 3-D volume ({SIZE}x{SIZE}); store a slice as an image",
        "zero.nii.gz": "its header gives no positions of voxels",
    }.items():
        with pytest.raises(FileError) as error:
            read_scan(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: {says}")


def test_headers_of_metaimage_and_nrrd_are_checked_first(tmp_path):
    """ITK itself crashes on some, and reads or explains others wrongly."""
    image = sitk.GetImageFromArray(HU.astype(np.int16))
    for name in ("cut.mha", "bare.mhd", "many.mha", "none.mha", "vast.mha", "cut.nrrd", "odd.nrrd"):
        sitk.WriteImage(image, str(tmp_path / name))
    (tmp_path / "cut.mha").write_bytes((tmp_path / "cut.mha").read_bytes()[:-2000])
    (tmp_path / "cut.nrrd").write_bytes((tmp_path / "cut.nrrd").read_bytes()[:-2000])
    (tmp_path / "bare.raw").unlink()
    for name, old, new in (
        ("many.mha", b"NDims = 3", b"NDims = 99"),
        ("none.mha", b"DimSize = 48", b"DimSize = 0"),
        ("vast.mha", b"DimSize = 48", b"DimSize = 4888888888"),
        ("odd.nrrd", b"sizes: 48 48 6", b"sizes: 48 x 6"),
    ):
        content = (tmp_path / name).read_bytes()
        assert old in content
        (tmp_path / name).write_bytes(content.replace(old, new))
    for name, says in {
        "cut.mha": "not a readable volume (2000 bytes are missing in cut.mha)",
        "bare.mhd": "its voxels are in bare.raw, which is missing; copy both files",
        "many.mha": "not a readable volume (its header says 48x48x6)",
        "none.mha": "not a readable volume (its header says 0x48x6)",
        "vast.mha": "not a readable volume (its header says 4888888888x48x6)",
        "cut.nrrd": "not a readable volume",
        "odd.nrrd": "not a readable volume (no sizes in its header)",
    }.items():
        with pytest.raises(FileError) as error:
            read_scan(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: {says}")


def test_masks_in_another_order_or_nearly_in_place(tmp_path):
    path = saved(tmp_path / "scan.nii.gz")
    scan = read_scan(path)
    nibabel.save(
        nibabel.as_closest_canonical(nibabel.load(saved(tmp_path / "a.nii.gz", LESIONS))), tmp_path / "b.nii.gz"
    )
    found, note = read_labels(tmp_path / "b.nii.gz", scan, path)
    assert np.array_equal(found, LESIONS) and note == ""
    near, far = AFFINE.copy(), AFFINE.copy()
    near[0, 3] += 0.06
    far[0, 3] += 0.6
    found, note = read_labels(saved(tmp_path / "near.nii.gz", LESIONS, affine=near), scan, path)
    assert np.array_equal(found, LESIONS) and note == "its mask is off by up to 0.06 mm"
    with pytest.raises(FileError, match=r"differs in geometry from scan\.nii\.gz \(by up to 0\.6 mm\)"):
        read_labels(saved(tmp_path / "far.nii.gz", LESIONS, affine=far), scan, path)


def test_spacing_that_is_not_in_the_file_is_unknown(tmp_path):
    nowhere = nibabel.Nifti1Image(HU.astype(np.int16).T, None)
    nibabel.save(nowhere, tmp_path / "nowhere.nii.gz")
    itk = sitk.GetImageFromArray(HU.astype(np.int16))
    itk.SetSpacing((4, 4, 5))
    sitk.WriteImage(itk, tmp_path / "meta.mha")
    data = (tmp_path / "meta.mha").read_bytes()
    assert not np.isnan(read_scan(tmp_path / "meta.mha").geometry.voxel_ml)
    (tmp_path / "meta.mha").write_bytes(data.replace(b"ElementSpacing = 4 4 5\n", b""))
    sitk.WriteImage(itk, tmp_path / "nan.nrrd")
    text = (tmp_path / "nan.nrrd").read_bytes()
    directions = re.search(rb"space directions: .*\n", text)[0]
    (tmp_path / "nan.nrrd").write_bytes(text.replace(directions, b"spacings: nan nan nan\n"))
    for name in ("nowhere.nii.gz", "meta.mha", "nan.nrrd"):
        scan = read_scan(tmp_path / name)
        assert np.isnan(scan.geometry.voxel_ml) and "mL are unknown" in scan.note, name


def test_impossible_sizes_are_told(tmp_path):
    small = np.diag([0.1, 0.1, 0.1, 1])
    scan = read_scan(saved(tmp_path / "cm.nii.gz", affine=small @ AFFINE))
    assert "not the size of a chest; check the spacing" in scan.note


def test_checksums_of_compressed_files(tmp_path):
    path = saved(tmp_path / "scan.nii.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileError, match="CRC check failed"):
        read_scan(path)
    path.write_bytes(b"")
    with pytest.raises(FileError, match="is empty"):
        read_scan(path)


def test_a_mask_is_no_scan(tmp_path):
    with pytest.raises(FileError, match=r"has few values, as a mask \(0, 1\)"):
        read_scan(saved(tmp_path / "mask.nii.gz", LESIONS * 1))


def test_metaimage_with_more_or_fewer_slices_than_its_header_says(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(HU.astype(np.int16)), tmp_path / "scan.mhd")
    text = (tmp_path / "scan.mhd").read_text()
    (tmp_path / "less.mhd").write_text(text.replace(f"{SIZE} {DEPTH}\n", f"{SIZE} {DEPTH - 1}\n", 1))
    with pytest.raises(FileError, match=rf"{2 * SIZE**2} bytes more than its header says"):
        read_scan(tmp_path / "less.mhd")
    (tmp_path / "list.mhd").write_text(text.replace("ElementDataFile = scan.raw", "ElementDataFile = LIST\nscan.raw"))
    with pytest.raises(FileError, match=f"its list has 1 files for {DEPTH} slices"):
        read_scan(tmp_path / "list.mhd")


def test_labels_of_several_structures(tmp_path):
    path = saved(tmp_path / "scan.nii.gz")
    scan, lungs = read_scan(path), HU < -600
    several = saved(tmp_path / "several.nii.gz", np.where(LESIONS, 3, np.where(lungs, 1 + (np.arange(SIZE) > 24), 0)))
    for name, values, says in (
        (
            "several",
            np.where(LESIONS, 3, np.where(lungs, 1 + (np.arange(SIZE) > 24), 0)),
            r"several labels \(0, 1, 2, 3\)",
        ),
        ("no_ground", LESIONS + 1, r"a mask without background \(0\) \(1, 2\)"),
        ("full", LESIONS * 0 + 1, r"a mask without background \(0\) \(1\)"),
    ):
        with pytest.raises(FileError, match=rf"{name}\.nii\.gz: .*{says}; say which .* by --label"):
            read_labels(saved(tmp_path / f"{name}.nii.gz", values), scan, path)
    soft = saved(tmp_path / "soft.nii.gz", LESIONS * 0.4, kind=np.float32)
    with pytest.raises(FileError, match=r"a map, not a mask \(fractions from 0 to 0\.4\)"):
        read_labels(soft, scan, path)
    assert np.array_equal(read_labels(several, scan, path, labels=[3])[0], LESIONS)
    assert np.array_equal(read_labels(several, scan, path, labels=[1, 2])[0], lungs & ~LESIONS)
    nearly = saved(tmp_path / "nearly.nii.gz", LESIONS * 0.9999999, kind=np.float32)
    assert np.array_equal(read_labels(nearly, scan, path)[0], LESIONS)
    assert not read_labels(saved(tmp_path / "empty.nii.gz", LESIONS * 0), scan, path)[0].any()
    assert scan.slices.shape == (DEPTH, SIZE, SIZE)
    assert "inverted?" in read_labels(saved(tmp_path / "inverted.nii.gz", ~LESIONS * 1), scan, path)[1]
