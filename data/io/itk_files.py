"""Read NRRD and MetaImage volumes with SimpleITK, after a look at their headers, which ITK trusts."""

import re
from collections.abc import Sequence
from functools import cache
from math import prod
from pathlib import Path
from types import ModuleType

import numpy as np

from data.errors import FileError, stop_unless_file, unreadable
from data.io.geometry import Geometry

HEADER = 2**16  # bytes that hold any header
NRRD, META = (".nrrd", ".nhdr"), (".mha", ".mhd")
LARGEST = 2**34  # voxels
SPACING = ("elementspacing", "elementsize", "spacedirections", "spacings")  # any of them, by format
BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 8, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}


@cache
def itk() -> ModuleType:
    """SimpleITK, imported with the first such volume: others need neither the package nor the time to import it."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def read_itk(path: Path) -> tuple[np.ndarray, Geometry]:
    """Voxels ``(X, Y, Z)`` and their geometry. Raises FileError if the file is damaged or not one 3-D volume."""
    knows_spacing = _check_header(path)
    try:
        image = itk().ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()[:200]
        raise FileError(path, "not a readable volume", "export or copy it again", reason) from error
    if image.GetNumberOfComponentsPerPixel() > 1 or "complex" in image.GetPixelIDTypeAsString():
        raise FileError(path, "has no single value a voxel", "save it as a volume of gray levels")
    if image.GetDimension() == 4:
        image = image[..., 0]
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise FileError(path, "its header gives no positions of voxels", "export it again", "zero or not finite")
    return itk().GetArrayFromImage(image).T, Geometry(image.GetSize(), affine, knows_spacing)


def _check_header(path: Path) -> bool:
    """Whether the header tells the spacing of voxels.

    Raises FileError for headers with absurd sizes, and for data that are missing, cut off, or more than expected.
    """
    stop_unless_file(path, "volume")
    try:
        with path.open("rb") as file:
            header = file.read(HEADER).decode("latin-1")
    except OSError as error:
        raise unreadable(path, error, "volume") from error
    is_meta = path.suffix.lower() in META
    end = re.search(r"^ElementDataFile.*\n" if is_meta else r"^\r?\n", header, re.M)  # the voxels follow
    header = header[: end.end()] if end else header
    fields = dict(re.findall(r"^ *([\w ]+?) *[=:]=? *(.*?) *\r?$", header, re.M))
    fields = {name.lower().replace(" ", ""): value for name, value in fields.items()}
    dimensions, sizes = ("ndims", "dimsize") if is_meta else ("dimension", "sizes")
    try:
        count, size = int(fields[dimensions]), [int(side) for side in fields[sizes].split()]
    except (KeyError, ValueError) as error:
        detail = f"no {sizes} in its header"
        raise FileError(path, "not a readable volume", "export or copy it again", detail) from error
    shape = "x".join(map(str, size[:9]))
    if len(size) != count or min(size) < 1 or prod(size) > LARGEST:
        raise FileError(path, "not a readable volume", "export or copy it again", f"its header says {shape}")
    if count != 3 and not (count == 4 and size[3] == 1):
        raise FileError(path, "not a 3-D volume", "save each of its volumes as a file of its own", shape)
    if is_meta:
        _check_meta_data(path, fields, size, len(header))
    told = "".join(fields.get(name, "") for name in SPACING)
    return bool(told) and "nan" not in told.lower()


def _check_meta_data(path: Path, fields: dict[str, str], size: Sequence[int], header: int) -> None:
    """Raise FileError if the voxels of a MetaImage are not all there, or more. header: its length in bytes."""
    own = fields.get("elementdatafile", "LOCAL").upper() == "LOCAL"
    data = path if own else path.parent / fields["elementdatafile"].split()[0]
    if not data.is_file():
        if fields["elementdatafile"].upper().startswith("LIST"):
            count = len(path.read_text(encoding="latin-1")[header:].split("\n\n")[0].split())
            if count not in (1, size[2]) or (count == 1 < size[2] and not fields["elementdatafile"].endswith("3D")):
                detail = f"its list has {count} files for {size[2]} slices"
                raise FileError(path, "not a readable volume", "complete the list", detail)
            return
        if "%" in fields["elementdatafile"]:
            return  # of several files, which ITK looks for
        raise FileError(path, f"its voxels are in {data.name}, which is missing", "copy both files")
    if fields.get("compresseddata", "False").lower() == "true":
        return
    kind = fields.get("elementtype", "").upper().removeprefix("MET_").removeprefix("U")
    needed = prod(size) * BYTES.get(kind, 1) * int(fields.get("elementnumberofchannels", 1))
    if (missing := needed + own * header - data.stat().st_size) > 0:
        raise FileError(path, "not a readable volume", "copy it again", f"{missing} bytes are missing in {data.name}")
    if missing < 0 and kind in BYTES and fields.get("headersize", "0") == "0":
        detail = f"{data.name} has {-missing} bytes more than its header says"
        raise FileError(path, "not a readable volume", "correct DimSize in the header", detail)
