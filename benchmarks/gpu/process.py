"""Run Python commands with a deadline; show and keep their output."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GRACE = 10  # seconds for a command to end by itself


class StepError(Exception):
    """A step failed; the message goes to the report."""


class OutOfTime(StepError):
    """A step was stopped at its limit."""


def run_until(deadline: float, command: list, log: Path) -> str:
    """Run ``python command`` from the repository's root; append its output to the log and return it.

    deadline: on the clock of ``time.monotonic``. Raises StepError if the command fails, OutOfTime if it was stopped;
    what it has started is stopped with it.
    """
    words = [str(word) for word in command]
    started = time.monotonic()
    if started >= deadline:
        raise OutOfTime("no time was left to begin")
    lines, stopped = [], threading.Event()
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that its children also get the signals
    ) as process:

        def stop() -> None:
            stopped.set()
            end(process)

        timer = threading.Timer(deadline - started, stop)
        timer.daemon = True
        timer.start()
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                lines.append(line)
            code = process.wait()
        except BaseException:  # in a session of its own, it gets no Ctrl-C
            end(process)
            raise
        finally:
            timer.cancel()
            printed = "".join(lines)
            with log.open("a", encoding="utf-8") as file:
                file.write(f"$ python {' '.join(words)}\n{printed.rstrip()}\n\n")
    name = " ".join(words[: 1 + (words[0] == "-m")])
    last_line = printed.strip().rpartition("\n")[2]
    if stopped.is_set():
        seconds = f"{time.monotonic() - started:.0f} s"
        raise OutOfTime(f"{name} was stopped after {seconds}; give more --minutes; its last line: {last_line}")
    if code:
        last_line = last_line or f"exit code {code}"
        raise StepError(f"{name} failed: {last_line}")
    return printed


def end(process: subprocess.Popen) -> None:
    """Interrupt a command and its children, then kill those that do not end in time."""
    for kind in (signal.SIGINT, signal.SIGKILL):  # after the first, pytest still prints its summary
        try:
            os.killpg(process.pid, kind)
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
