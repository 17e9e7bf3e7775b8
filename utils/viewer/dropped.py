"""Files that were dropped on a page, brought to one folder, archives unpacked."""

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from data.errors import InputError, listed

MOST_UNPACKED = 8 * 2**30  # bytes of an archive


def gather(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The files in a new folder, archives unpacked, hidden files and those of macOS left out.

    Raises InputError for two files of one name, and for archives that can't be unpacked or are empty.
    """
    folder.mkdir()
    for path in paths:
        target = folder / path.name
        if target.exists() or (folder / path.stem).is_dir():
            raise InputError(f"two files named {path.name}; rename one of them")
        if path.suffix.lower() == ".zip":
            _unpack(path, folder / path.stem)
        elif path.is_dir():
            shutil.copytree(path, target)
        else:
            shutil.copy(path, target)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(folder)))
    if paths and not files:
        raise InputError(f"{listed([path.name for path in paths])}: no file in it; drop slices or a scan")
    return files


def only(files: Sequence[Path], of: str) -> Path:
    """The one file of a drop. Raises InputError if there are several."""
    if len(files) > 1:
        raise InputError(f"{len(files)} masks of {of} ({listed([file.name for file in files])}); drop one")
    return files[0]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MOST_UNPACKED:
                raise InputError(f"{path.name}: too large when unpacked; drop one scan")
            folder.mkdir()
            archive.extractall(folder)  # never out of the folder
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, EOFError) as error:
        locked = "encrypted" in str(error) or "password" in str(error)
        why = "needs a password; unpack it first" if locked else f"can't be unpacked ({error}); pack it again"
        raise InputError(f"{path.name}: {why}") from error
