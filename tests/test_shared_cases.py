"""Small inputs that once failed, from ../shared/cases: each is read rightly, or refused in one line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, SHARED

CASES = SHARED / "cases"
NAMES = sorted(path.parent.name for path in CASES.glob("*/make.py"))
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not NAMES, reason="the cases in ../shared are not part of the repository"),
]
# What the output has to have, and what it must not have.
ML = "(ML)"  # the volume that the small model finds in the good scans; the truth is 120 mL
GOOD = ("dicom_colour/in/b_good", "hu_padding_darker_than_air/in/pad1024.nii.gz")
EXPECTED = {
    "checkpoint_of_nan": r"nan\.pth: its weights are NaN",
    "checkpoint_wrapped": r"(?s)(10 slices; .*){4}",
    "dicom_colour": r"(?s)b_good +" + ML + r".*a_colour: has several values a pixel",
    "dicom_enhanced_multiframe": r"(?s)a_enhanced +" + ML,
    "dicom_folder_named_dot": r"\nscan +" + ML,
    "dicom_found_nowhere": r"(?s)PATIENT_STUDY_SERIES +" + ML + r".*IM0003\.dcm.*contains 2 DICOM series \(1: number 1",
    "dicom_mixed_geometry": r"(?s)differ in orientation.*SC0000\.dcm.*IM0004\.dcm.*pixel spacing.*IM0004\.dcm",
    "dicom_monochrome1": rf"(?s)\nsigned +{ML}.*\nunsigned +{ML}",
    "dicom_padding_without_rescale": rf"(?s)interpreted as HU \+ 1024.*\nscan +{ML}.*0\.[67]",
    "dicom_pixels_cut": r"IM0003\.dcm .*6192 vs 8192",
    "dicom_uneven_slices": r"5 to 7 mm apart",
    "exif_orientation": r"\nDice +0\.7",
    "float_maps_beyond_by_an_ulp": r"\nDice +1\.000",
    "hidden_and_decomposed_names": r"(?s)\nDice +0\.7.*\nDice +0\.[78]",
    "hu_padding_darker_than_air": rf"(?s)pad1024\S* +{ML}.*pad2000\S* +\1 .*pad3024\S* +\1 ",
    "mask_of_two_colours_none_black": r"store background as black",
    "mask_with_other_voxel_order": rf"(?s)\nscan\S* +{ML}.*off by up to 0\.06 mm.*\nscan\S* +{ML}",
    "metaimage_cut_off": r"(?s)2000 bytes are missing in cut\.mha.*no_raw\.raw, which is missing",
    "nifti_complex": rf"(?s)\nb\S* +{ML}.*a\.nii\.gz: has no single value a voxel",
    "nifti_hdr_img_pair": rf"(?s)\nscan\.hdr +{ML}",
    "nifti_labels_of_several_classes": rf"(?s)\nscan\S* +{ML}.*\(0, 1, 2, 3\).*without background.*a map, not a mask",
    "nifti_not_readable_messages": rf"(?s)\nnifti2\S* +{ML}.*\nsheared\S* +{ML}.*rename it to compressed\.nii\.gz",
    "nifti_sform_and_qform_differ": r"(?s)by up to 378\.0 mm.*neither sform.*by 15 degrees.*flipped 0\.0.*none",
    "out_of_memory_on_cpu": r"error: the memory is full; lower --batchsize",
    "png16_with_8_or_12_bits_in_some": r"nearly black.*phantom_0000\.png, phantom_0001\.png, phantom_0002\.png",
    "pseudo_mask_ignore_scored": r"masks with gray 128, which fake_labels_generator\.py",
    "resume_with_another_number_of_steps": r"(?s)\n5,0\.005\n6,0\.00\d+\n7,0\.00\d+\n8,",
    "scan_among_slices": r"10 slices beside the scans",
    "tiff_mask_of_floats": r"\nDice +0\.7",
    "unlabeled_holds_validation_and_test": r"(?s)8 pseudo-labeled slices are val.*10 pseudo-labeled slices are test",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The inputs of all cases, made by their scripts, with a phantom and a small model."""
    base = tmp_path_factory.mktemp("cases")
    shutil.copytree(CASES, base, dirs_exist_ok=True)
    common = base / "common.py"
    common.write_text(common.read_text().replace("data.phantom_volumes", "data.phantom.volumes"))
    environment = os.environ | {
        "REPO": str(ROOT), "PY": sys.executable, "B": str(base), "OMP_NUM_THREADS": "1", "PYTHONPATH": "",
    }  # fmt: skip

    def run(command: str, folder: Path = ROOT) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment | {"O": str(base / "out")},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout

    phantom = "$PY -m data.phantom --out $B/phantom --labeled 40 --unlabeled 0 --test 10 --size 96"
    model = "$PY supervised_train.py --data_root $B/phantom --base_channels 8 --image_size 96 --epoch 60"
    for command in (phantom, f"{model} --save_folder $B/model", "for f in $B/*/make.py; do $PY $f || exit 1; done"):
        code, printed = run(command)
        assert code == 0, printed
    found = []
    for scan in GOOD:
        code, printed = run(
            f"$PY test.py --pretrained_model $B/model/best.pth --test_img_path $B/{scan} --img_save_folder $O"
        )
        assert code == 0 and "note" not in printed, printed
        found.append(re.search(r"\nmean \(std\) +(\d+)\.", printed)[1])
        run("rm -r $O")
    return run, rf"((?:{'|'.join(found)})(?:\.\d+)?)\b"


@pytest.mark.parametrize("name", NAMES)
def test_case(made, name):
    text = (CASES / name / "README").read_text()
    command = re.search(r"^command: (.*)$", text, re.MULTILINE)[1]
    command = re.sub(r"'(\$B[^' ]*\*[^' ]*)'", r'"\1"', command)  # a pattern of ours, with a variable of the shell
    run, ml = made
    run("rm -rf $O; mkdir -p $O")
    code, printed = run(command)
    assert "Traceback" not in printed and code in (0, 1, 2), printed
    assert re.search(EXPECTED[name].replace(ML, ml), printed), printed
