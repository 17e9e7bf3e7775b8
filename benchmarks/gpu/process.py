"""Python commands that end in time: run one by one, shown as they run, their output kept."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GRACE = 10  # seconds that a command has to end by itself
OVERWRITTEN = re.compile(r"[^\r\n]*\r(?!\n)")  # what a progress bar has drawn over


class StepError(Exception):
    """A step could not be done; the message is for the report."""


class OutOfTime(StepError):
    """A step was stopped at its limit."""


def run_until(deadline: float, command: list, log: Path) -> str:
    """Run ``python command`` from the repository's root; return what it printed, which is appended to the log, too.

    deadline: on the clock of ``time.monotonic``. Raises StepError if the command fails, OutOfTime if it was stopped;
    what it has started is stopped with it.
    """
    words = [str(word) for word in command]
    if time.monotonic() >= deadline:
        raise OutOfTime("no time was left to begin")
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that its children get the signals, too
    ) as process:
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            end(process)

        timer = threading.Timer(deadline - started, stop)
        timer.start()
        with ended_with_this_one(process):
            output = b"".join(shown(process))
            code = process.wait()
        timer.cancel()
    printed = OVERWRITTEN.sub("", output.decode(errors="replace"))
    with log.open("a") as file:
        file.write(f"$ python {' '.join(words)}\n{printed.rstrip()}\n\n")
    if stopped.is_set():
        raise OutOfTime(f"{words[0]} was stopped after {time.monotonic() - started:.0f} s")
    if code:
        last_line = printed.strip().rpartition("\n")[2] or f"exit code {code}"
        raise StepError(f"{' '.join(words[:2]) if words[0] == '-m' else words[0]} failed: {last_line}")
    return printed


def end(process: subprocess.Popen) -> None:
    """Ask a command and its children to end, and kill what has not ended in time."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


@contextmanager
def ended_with_this_one(process: subprocess.Popen) -> Iterator[None]:
    """A command has a session of its own, and does not hear the Ctrl-C that ends this one."""
    try:
        yield
    except BaseException:
        end(process)
        raise


def shown(process: subprocess.Popen) -> Iterator[bytes]:
    """What a command prints, shown at once, its progress bars included."""
    while chunk := os.read(process.stdout.fileno(), 1 << 16):
        sys.stdout.write(chunk.decode(errors="replace"))
        sys.stdout.flush()
        yield chunk
