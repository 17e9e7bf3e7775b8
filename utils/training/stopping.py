"""Stop a run at the end of an epoch, when it is asked to."""

import os
import signal
import threading
from types import FrameType, TracebackType

from tqdm import tqdm

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopRequest:
    """While it is entered, Ctrl-C, SIGTERM and SIGHUP ask for a stop, which the run makes after the epoch.

    A second Ctrl-C stops at once. Does nothing in other threads than the main one, which have no signals.
    """

    def __init__(self) -> None:
        self.signal, self.pid = 0, os.getpid()

    def __enter__(self) -> "StopRequest":
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.pid:  # a worker of a loader, which the epoch still needs; others end it
            if number != signal.SIGINT:
                os._exit(1)
            return
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        now = "; Ctrl-C stops now" if number == signal.SIGINT else ""
        tqdm.write(f"{signal.Signals(number).name:<11} stopping after this epoch, which is saved first{now}")
