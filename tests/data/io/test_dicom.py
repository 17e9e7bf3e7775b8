"""DICOM series as scanners, archives and converters leave them: read as they are, or refused by the name of a file."""

import gzip
import locale
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import DEPTH, SIZE, drawn
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import BasicTextSRStorage, EnhancedCTImageStorage, ImplicitVRLittleEndian, RLELossless, generate_uid

from data.errors import FileError, InputError
from data.folders import list_slices
from data.io.volumes import is_volume, read_scan
from data.scans import find_scans


@pytest.fixture
def series(scans, tmp_path):
    """A function that copies a series and lets ``change(dataset, index)`` alter each slice, from the feet up."""

    def copy(change=lambda dataset, index: None, *, name="series", index=0) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in (scans / "DICOM" / f"{index:04}").iterdir():
            dataset = dcmread(file)
            if change(dataset, int(dataset.InstanceNumber) - 1) != "left out":
                dataset.save_as(folder / file.name, enforce_file_format=True)
        return folder

    return copy


def stored(dataset):
    return np.frombuffer(dataset.PixelData, np.int16).reshape(SIZE, SIZE)


def store(dataset, values, *, signed=True):
    dataset.PixelData, dataset.PixelRepresentation = values.astype(np.int16 if signed else np.uint16).tobytes(), signed


def test_values_and_places_do_not_depend_on_names_and_suffixes(series, tmp_path):
    folder = series()
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"IM{(7 * number) % DEPTH}")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / "._IM0").write_bytes(b"of macOS")
    (folder / "readme.txt").write_text("no slice")
    assert is_volume(folder)
    scan = read_scan(folder)
    assert scan.note == "" and np.array_equal(scan.slices, drawn(0)[0])


def photometric(dataset, index):
    dataset.PhotometricInterpretation = "MONOCHROME1"


def unsigned(dataset, index):
    store(dataset, stored(dataset) + 1024, signed=False)
    dataset.RescaleIntercept = -1024


def twelve_bits(dataset, index):
    unsigned(dataset, index)
    dataset.BitsStored, dataset.HighBit = 12, 11


def doubled_slope(dataset, index):
    even = stored(dataset) // 2 * 2
    store(dataset, even // 2)
    dataset.RescaleSlope = 2


def changing_scale(dataset, index):
    store(dataset, stored(dataset) + 10 * index)
    dataset.RescaleIntercept = -10 * index


def run_length(dataset, index):
    dataset.compress(RLELossless)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (photometric, ""),
        (unsigned, ""),
        (twelve_bits, ""),
        (doubled_slope, ""),
        (changing_scale, "6 rescale slopes and intercepts"),
        (run_length, ""),
    ],
)
def test_values(series, change, note):
    scan = read_scan(series(change))
    assert scan.note.startswith(note) and bool(scan.note) == bool(note)
    assert np.abs(scan.slices - drawn(0)[0]).max() <= (1 if change is doubled_slope else 0)


def outside(hu):
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    return (x**2 + y**2 > (SIZE / 2) ** 2) & (hu < -700)


@pytest.mark.parametrize("padding", [-1024, -2000, -3024, 64512 - 2**16])
@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("offset", [0, 1024])
def test_padding_is_air_also_without_rescale(series, padding, tagged, offset):
    def pad(dataset, index):
        hu = stored(dataset)
        store(dataset, np.where(outside(hu), padding, hu + offset))
        del dataset.RescaleSlope, dataset.RescaleIntercept
        if tagged:
            dataset.add_new("PixelPaddingValue", "SS", padding)

    scan = read_scan(series(pad))
    expected = np.where([outside(hu) for hu in drawn(0)[0]], -1024, drawn(0)[0])
    assert np.array_equal(scan.slices, expected)
    assert scan.note.endswith("interpreted as HU + 1024") if offset else scan.note == ""


def test_negative_values_without_their_sign(series):
    def wrap(dataset, index):
        dataset.PixelRepresentation = 0

    scan = read_scan(series(wrap))
    assert np.array_equal(scan.slices, drawn(0)[0]) and scan.note.startswith("values of 32768 and more")


def enhanced(folder: Path, file: Path) -> None:
    """Write the slices of a series as the frames of one file, whose order is not that of their positions."""
    slices = [dcmread(path) for path in sorted(folder.iterdir())]
    whole = dcmread(next(folder.iterdir()))
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(whole, name)
    whole.SOPClassUID = EnhancedCTImageStorage
    first, frames = slices[0], []
    shared = {
        "PixelMeasuresSequence": {"PixelSpacing": first.PixelSpacing, "SliceThickness": first.SliceThickness},
        "PlaneOrientationSequence": {"ImageOrientationPatient": first.ImageOrientationPatient},
        "PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": 0},
    }
    for each in slices:
        frames.append(groups({"PlanePositionSequence": {"ImagePositionPatient": each.ImagePositionPatient}}))
    whole.SharedFunctionalGroupsSequence = Sequence([groups(shared)])
    whole.PerFrameFunctionalGroupsSequence = Sequence(frames)
    whole.NumberOfFrames = len(slices)
    whole.PixelData = b"".join(each.PixelData for each in slices)
    whole.save_as(file, enforce_file_format=True)


def groups(content):
    dataset = Dataset()
    for name, tags in content.items():
        item = Dataset()
        for tag, value in tags.items():
            setattr(item, tag, value)
        setattr(dataset, name, Sequence([item]))
    return dataset


@pytest.mark.parametrize("index", range(2))
def test_frames_of_one_file(series, tmp_path, index):
    folder = series(index=index)
    enhanced(folder, tmp_path / "enhanced.dcm")
    one, many = read_scan(tmp_path / "enhanced.dcm"), read_scan(folder)
    assert np.array_equal(one.slices, drawn(index)[0]) and one.geometry.distance(many.geometry) < 1e-3


def test_one_slice_has_the_thickness_of_its_header(series):
    folder = series()
    whole = read_scan(folder)
    one = read_scan(folder / "0003.dcm")
    assert one.slices.shape == (1, SIZE, SIZE) and (whole.slices == one.slices).all(axis=(1, 2)).sum() == 1
    assert one.geometry.voxel_ml == pytest.approx(whole.geometry.voxel_ml, rel=1e-3)
    assert one.note == f"only this file is read; give its folder for the {DEPTH - 1} beside it"

    def thin(dataset, index):
        del dataset.SliceThickness

    thin_one = read_scan(series(thin, name="thin") / "0003.dcm")
    assert np.isnan(thin_one.geometry.voxel_ml) and "volumes in mL are unknown" in thin_one.note


def test_unknown_places_are_told(series):
    def bare(dataset, index):
        del dataset.ImagePositionPatient, dataset.PixelSpacing

    scan = read_scan(series(bare))
    assert np.array_equal(scan.slices, drawn(0)[0])  # by their numbers
    assert "no pixel spacing" in scan.note and "no positions" in scan.note and np.isnan(scan.geometry.voxel_ml)


def test_uneven_distances_are_told(series):
    def uneven(dataset, index):
        x, y, z = dataset.ImagePositionPatient
        step = float(dataset.SliceThickness)
        dataset.ImagePositionPatient = [x, y, f"{z + (0.2 * step if index >= 3 else 0):.6f}"]

    scan = read_scan(series(uneven))
    assert "slices are" in scan.note and "mm apart, their mean is used" in scan.note


def test_rounding_of_directions_and_spacings_is_no_difference(series):
    def rounded(dataset, index):
        off = 1e-6 * (-1) ** index
        dataset.ImageOrientationPatient = [1, 0.0005 + off, 0, -0.0005 - off, 1, 0]
        dataset.PixelSpacing = [f"{value + off:.9f}" for value in dataset.PixelSpacing]

    assert np.array_equal(read_scan(series(rounded)).slices, drawn(0)[0])


def test_slices_that_jump_sideways_are_told(series):
    def jump(dataset, index):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x + (30 if index in (2, 3) else 0), y, z]

    assert "shifted sideways by up to 30.0 mm" in read_scan(series(jump)).note


def test_compressed_pixels(series, tmp_path):
    """JPEG 2000, which pydicom alone can't decompress."""
    folder, spoken = series(), locale.setlocale(locale.LC_ALL)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    for file in list(folder.iterdir()):
        writer.SetFileName(str(file))
        writer.Execute(sitk.ReadImage(str(file)))
    locale.setlocale(locale.LC_ALL, spoken)  # the writer has changed it for the whole process
    assert dcmread(file).file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(read_scan(folder).slices, drawn(0)[0])


@pytest.mark.parametrize("name", ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "ConvolutionKernel"])
def test_slices_of_two_patients_are_told(series, name):
    def half(dataset, index):
        setattr(dataset, name, "1.2.3" if index > 2 else "1.2.4")

    assert read_scan(series(half)).note == f"slices differ in {name}; are they of one scan?"


def bare(folder, *, suffix=""):
    """Write DICOM files again as old exporters do: without preamble and file header, in implicit little endian."""
    for file in list(folder.iterdir()):
        dataset = dcmread(file)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = True, True
        write_dataset(buffer, dataset)
        file.unlink()
        (folder / f"{file.stem}{suffix}").write_bytes(buffer.getvalue())


@pytest.mark.parametrize("suffix", ["", ".dcm", ".123"])
def test_files_without_preamble(series, suffix):
    folder = series()
    bare(folder, suffix=suffix)
    assert np.array_equal(read_scan(folder).slices, drawn(0)[0]) and len(find_scans(folder.parent).scans) == 1


def test_packed_files_among_slices_are_told(series):
    folder = series()
    packed = sorted(folder.iterdir())[-1]
    (folder / f"{packed.name}.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    assert f"left out ({packed.name}.gz); unpack them" in read_scan(folder).note
    alone = folder.parent / "packed"
    alone.mkdir()
    shutil.move(folder / f"{packed.name}.gz", alone)
    found = find_scans(folder.parent)
    assert [scan.path for scan in found.scans] == [folder] and "no scan that can be read in packed" in found.note
    with pytest.raises(InputError, match=rf"unpack {packed.name}\.gz"):
        list_slices(alone)


def test_slices_twice_and_slices_without_a_place_are_refused(series):
    folder = series()
    for file in list(folder.iterdir()):
        shutil.copy(file, folder / f"copy_{file.name}")
    with pytest.raises(FileError, match=r"slices at the same place \(.*copy_0005\.dcm.*leave one of each out"):
        read_scan(folder)

    def nowhere(dataset, index):
        del dataset.ImagePositionPatient
        dataset.InstanceNumber = 1

    with pytest.raises(FileError, match="neither positions nor numbers"):
        read_scan(series(nowhere, name="nowhere"))


def test_a_table_of_values_takes_the_place_of_slope_and_intercept(series):
    """Stored inverted, as some scanners do, with a table that turns the values back into HU + 1024."""

    def by_table(dataset, index):
        hu = stored(dataset) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        store(dataset, 4095 - (hu + 1024), signed=False)
        table = Dataset()
        table.add_new("LUTDescriptor", "US", [4096, 0, 16])
        table.add_new("LUTData", "US", list(range(4095, -1, -1)))
        table.ModalityLUTType = "HU"
        dataset.ModalityLUTSequence = Sequence([table])
        del dataset.RescaleSlope, dataset.RescaleIntercept

    scan = read_scan(series(by_table))
    assert np.array_equal(scan.slices, drawn(0)[0]) and scan.note.endswith("interpreted as HU + 1024")


def test_a_localizer_is_left_out(series):
    def scout(dataset, index):
        if index == 2:
            dataset.ImageOrientationPatient, dataset.ImageType = (
                [1, 0, 0, 0, 0, -1],
                ["ORIGINAL", "PRIMARY", "LOCALIZER"],
            )
            dataset.ImagePositionPatient = [0, 0, -1300]

    def last(dataset, index):
        if index == DEPTH - 1:
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    with pytest.raises(FileError, match=r"a slice is missing"):
        read_scan(series(scout))
    scan = read_scan(series(last, name="last"))
    assert np.array_equal(scan.slices, drawn(0)[0][:-1]) and scan.note == "1 localizer left out (0001.dcm)"


def zoomed(dataset, index):
    if index > 3:
        dataset.PixelSpacing = [5, 5]


def turned(dataset, index):
    if index > 3:
        dataset.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]


def wide(dataset, index):
    if index == 2:
        store(dataset, np.zeros((SIZE, 2 * SIZE)))
        dataset.Columns = 2 * SIZE


def cut(dataset, index):
    if index == 2:
        dataset.PixelData = dataset.PixelData[:-200]


def coloured(dataset, index):
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = dataset.PixelData * 3


def huge(dataset, index):
    if index == 2:
        dataset.Rows = 65535


def spun(dataset, index):
    dataset.ImageOrientationPatient = [0, 0, 0, 0, 0, 0]


def doubled(dataset, index):
    if index == 2:
        dataset.ImagePositionPatient = [*dataset.ImagePositionPatient[:2], 1e3]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (zoomed, r"slices differ in pixel spacing: 4 of 6 agree \(0001\.dcm, 0002\.dcm\); leave these out"),
        (turned, r"slices differ in orientation: 4 of 6 agree \(0001\.dcm, 0002\.dcm\)"),
        (wide, r"slices differ in size: 5 of 6 agree \(0004\.dcm\)"),
        (cut, r"whose pixels can't be read \(0004\.dcm .*4408 vs 4608 bytes"),
        (coloured, r"several values a pixel \(colours\)"),
        (huge, r"can't be read \(0004\.dcm \(65535 rows and 48 columns\)\)"),
        (spun, r"ImageOrientationPatient is no direction"),
        (doubled, r"a slice is missing or doubled \(.*0004\.dcm"),
    ],
)
def test_slices_that_do_not_belong_together(series, change, says):
    with pytest.raises(FileError, match=says) as error:
        read_scan(series(change))
    assert "\n" not in str(error.value)


def test_every_file_must_be_readable(series):
    folder = series()
    (folder / "0002.dcm").write_bytes((folder / "0002.dcm").read_bytes()[:700])
    (folder / "0004.dcm").write_bytes(bytes(300))
    with pytest.raises(FileError, match=r"0002\.dcm .*0004\.dcm"):
        read_scan(folder)


def test_one_of_two_series(series, scans):
    folder = series(name="two")
    for file in (scans / "DICOM" / "0001").iterdir():
        dataset = dcmread(file)
        dataset.SeriesNumber, dataset.SeriesDescription = 7, "Lung\nsharp"
        dataset.save_as(folder / f"other_{file.name}", enforce_file_format=True)
    with pytest.raises(FileError, match=r"2 DICOM series \(1: number 1, no description, 6 slices; 2: number 7"):
        read_scan(folder)
    assert np.array_equal(read_scan(folder, series=1).slices, drawn(0)[0])
    assert np.array_equal(read_scan(folder, series=2).slices, drawn(1)[0])
    with pytest.raises(FileError, match="has no series 3"):
        read_scan(folder, series=3)


def test_other_objects_beside_a_series_are_left_out(series):
    folder = series()
    dose = dcmread(folder / "0003.dcm")
    dose.SeriesInstanceUID, dose.SOPInstanceUID, dose.Modality = generate_uid(), generate_uid(), "OT"
    del dose.ImagePositionPatient, dose.ImageOrientationPatient
    dose.save_as(folder / "dose.dcm", enforce_file_format=True)
    report = dcmread(folder / "0003.dcm")
    report.SeriesInstanceUID, report.SOPInstanceUID, report.Modality = generate_uid(), generate_uid(), "SR"
    report.SOPClassUID = BasicTextSRStorage
    del report.PixelData, report.Rows, report.Columns
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    scan = read_scan(folder)
    assert np.array_equal(scan.slices, drawn(0)[0]) and scan.note == "1 series without positions left out"


def test_a_file_without_the_mark_of_dicom(series):
    folder = series()
    for file in list(folder.iterdir()):
        file.write_bytes(file.read_bytes()[132:])
    assert np.array_equal(read_scan(folder).slices, drawn(0)[0])
    shutil.rmtree(folder)
