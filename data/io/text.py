"""Write files of text."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename: if killed, it leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
