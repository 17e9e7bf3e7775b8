"""Write files whole: under a temporary name, then renamed. If killed, a run leaves the old file or the new one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, with the same suffix; it becomes ``path``, unless the block fails.

    A link at ``path`` is replaced, not followed.
    """
    end = os.fsdecode(os.fsencode(path.name)[-200:])  # a name can't be longer than 255 bytes
    temporary = path.with_name(f".unfinished_{end}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file of text."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
