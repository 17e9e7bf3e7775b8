"""Errors and doubts about the user's files and flags, and how they are reported."""

import errno
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType


class InputError(Exception):
    """A missing folder, an unreadable file, a wrong flag: one line that says what, where and what to do.

    The scripts print it as ``error: ...`` and end with exit code 2, without a traceback.
    """


class Stopped(Exception):
    """A run that was asked to stop by a signal, after it has saved all of its work."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class FileError(InputError):
    """A file that can't be used: what is wrong, a ``detail`` that differs from file to file, and what to do."""

    def __init__(self, path: Path, problem: str, advice: str, detail: str = "") -> None:
        super().__init__(path, problem, advice, detail)  # all of them, for the way back from another process
        self.path, self.problem, self.advice = path, problem, advice
        self.detail = f" ({detail})" if detail else ""

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}{self.detail}; {self.advice}"


SHOWN = 5  # names in an error
ADVICE = {  # by the errors of the system that have nothing to do with what a file contains
    errno.ENOENT: "check the path",
    errno.EACCES: "change its permissions, or copy it",
    errno.EMFILE: "allow more open files (ulimit -n), or lower --num_workers",
    errno.ENFILE: "close other programs",
    errno.EIO: "check the disk, or copy it from elsewhere",
}


def installed(name: str, install: str = "") -> ModuleType:
    """An optional package. Raises InputError that says how to install it, by default alone."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"{name} is missing; pip install {install or name}") from error


def unreadable(path: Path, error: Exception, kind: str) -> FileError:
    """The error for a file that can't be read as what it should be, a ``kind`` such as "image"."""
    if isinstance(error, OSError) and (advice := ADVICE.get(error.errno or 0)):
        return FileError(path, "can't be read", advice, error.strerror or "")
    reason = reason_of(error).replace(repr(str(path)), "").replace(str(path), "it").strip()
    return FileError(path, f"not a readable {kind}", "export or copy it again", reason)


def reason_of(error: Exception) -> str:
    """The last line of a library's error, which says what is wrong."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:200]


def printable(text: str) -> str:
    """Text for a terminal, in one line: control characters, which names of files may have, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def listed(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def stop_unless_file(path: Path, kind: str) -> None:
    """Raise FileError for what is there but no file: reading from a named pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise FileError(path, f"not a readable {kind}", "give a file", "a folder" if path.is_dir() else "no file")


def one_note(*notes: str) -> str:
    """One note of several, of which some may be empty: what may be wrong, though work goes on."""
    return "; ".join(filter(None, notes))


def one_error(errors: Sequence[FileError], *, files: int) -> InputError:
    """One error for all that failed of ``files`` files: it names each of them and gives the advice once.

    If all failed in the same way, it says so instead of naming them.
    """
    if len(errors) == 1:
        return errors[0]
    by_problem = defaultdict(list)
    for error in errors:
        by_problem[error.path.parent, error.problem, error.advice].append(error)
    parts = []
    for (folder, problem, advice), group in by_problem.items():
        names = ", ".join(f"{error.path.name}{error.detail}" for error in group)
        if len(group) == files:
            names = f"all {files} files, as {group[0].path.name}{group[0].detail}"
        parts.append(f"{folder}: {problem}: {names}; {advice}")
    return InputError("; ".join(parts))
