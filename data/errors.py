"""Errors and doubts about the user's files and flags, and how they are reported."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path


class InputError(Exception):
    """A missing folder, an unreadable file, a wrong flag: one line that says what, where and what to do.

    The scripts print it as ``error: ...`` and end with exit code 2, without a traceback.
    """


class FileError(InputError):
    """A file that can't be used: what is wrong, a ``detail`` that differs from file to file, and what to do."""

    def __init__(self, path: Path, problem: str, advice: str, detail: str = "") -> None:
        super().__init__(path, problem, advice, detail)  # all of them, for the way back from another process
        self.path, self.problem, self.advice = path, problem, advice
        self.detail = f" ({detail})" if detail else ""

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}{self.detail}; {self.advice}"


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
