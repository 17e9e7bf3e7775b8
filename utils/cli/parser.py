"""Command-line parsing: help that shows defaults, and errors in one line."""

import argparse
import io
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

from data.errors import ADVICE, FileError, InputError, Stopped, printable
from data.preprocess.window import LUNG, Window
from utils.fields import Range, admits, names_of

Config = TypeVar("Config")

NO_MEMORY = "the memory is full; lower --batchsize, --image_size, --base_channels or --cache_gb"
RUNTIME_ERRORS = {  # what torch says, in part, and what to do
    "can't allocate memory": NO_MEMORY,
    "not enough memory": NO_MEMORY,
    "unable to allocate shared memory": "/dev/shm is full; use --num_workers 0, or enlarge it",
    "unable to open shared memory": "/dev/shm is full; use --num_workers 0, or enlarge it",
    "No space left on device": "/dev/shm is full; use --num_workers 0, or enlarge it",
    "more than 1 value per channel": "too few values for batch norm; raise --batchsize or --image_size, or lower "
    "--accumulate",
    "exited unexpectedly": "a worker was killed, most likely for lack of memory; use --num_workers 0",
    "is killed by signal": "a worker was killed, most likely for lack of memory; use --num_workers 0",
}


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        # If the default depends on other flags, the help text states it.
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that shows defaults in its help and reports an error in one line."""

    def __init__(self, description: str, **kwargs: Any) -> None:
        super().__init__(description=description, formatter_class=_Help, allow_abbrev=False, **kwargs)
        self._negative_number_matcher = re.compile(r"-\d")  # -650,1500 is a value, not a flag

    def error(self, message: str) -> NoReturn:
        if (unknown := re.match(r"unrecognized arguments: (--[\w-]+)", message)) and (
            near := get_close_matches(unknown[1], self._option_string_actions, n=1)
        ):
            message += f"; did you mean {near[0]}?"
        if message.startswith("argument --model: invalid choice"):
            message += "; --pretrained_model starts from a checkpoint"
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def number(kind: type, low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """An argparse type: an ``int`` or ``float`` in a ``Range``."""
    accepted = Range(low, high, above)

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of type {kind.__name__}") from None
        if value not in accepted:
            raise argparse.ArgumentTypeError(f"must be {accepted}, not {text}")
        return value

    return parse


# By field: one name in all scripts, beside the published one.
ALIASES = {
    "test_img_path": "--images",
    "train_img_path": "--images",
    "test_msk_path": "--masks",
    "train_msk_path": "--masks",
    "truth_path": "--masks",
    "save_folder": "--out",
}


def add_options(group: argparse._ActionsContainer, config: type, helps: dict[str, str]) -> None:
    """Add flags named as fields of a config class, which has their types, defaults, ranges and choices."""
    by_name = {option.name: option for option in fields(config)}
    for name, text in helps.items():
        option = by_name[name]
        values: dict[str, Any] = {}
        if accepted := option.metadata.get("range"):
            values["type"] = number(float if admits(option, float) else int, **vars(accepted))
        elif names := names_of(option):
            values["choices"] = names
        elif admits(option, bool):
            values["action"] = argparse.BooleanOptionalAction
        elif admits(option, Path):
            values["type"] = Path
        elif admits(option, Window):
            values["type"] = window
        default = "lung" if option.default == LUNG else option.default
        flags = (f"--{name}", ALIASES[name]) if name in ALIASES else (f"--{name}",)
        group.add_argument(*flags, dest=name, default=default, help=text, **values)


def window(text: str) -> Window:
    """An argparse type: ``lung`` or ``LEVEL,WIDTH`` in HU."""
    if text == "lung":
        return LUNG
    try:
        level, width = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither `lung` nor LEVEL,WIDTH, such as -650,1500") from None
    if not (math.isfinite(level) and math.isfinite(width) and width > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: the width must be above 0")
    return Window(level, width)


def settings(args: argparse.Namespace, kind: type[Config]) -> Config:
    """Create a dataclass from the options named as its fields; options that are None keep the default."""
    given = {field.name: getattr(args, field.name, None) for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in given.items() if value is not None})


def exit_if_left_out(errors: Sequence[FileError], total: int) -> None:
    """Report the scans that could not be processed, a line each; the others are done.

    Exits with code 1 or, if nothing is done, 2.
    """
    for error in errors:
        print(printable(f"error: {error}"), file=sys.stderr)
    if errors and total > 1:
        left = f"{len(errors)} of {total} scans could not be processed; fix them and run the command again"
        print(left, file=sys.stderr)
    if errors:
        sys.exit(2 if len(errors) == total else 1)


def run(main: Callable[[], None]) -> None:
    """Call a script's ``main``; report errors of the user in one line, with exit code 2 and no traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that are no text
    try:
        main()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails again at exit
        _end(1, "stopped: the output pipe was closed, as by | head")
    except (InputError, ModuleNotFoundError, OSError, MemoryError, RuntimeError, ValueError) as error:
        if (message := _explained(error)) is None:
            raise
        _end(2, f"error: {message}")
    except Stopped as stop:
        _end(128 + stop.number, f"stopped: {stop}")
    except KeyboardInterrupt:
        _end(130, "stopped")


def _explained(error: Exception) -> str | None:
    """What is wrong and what to do; None if it is a fault of the program."""
    text = str(error)
    if "in DataLoader worker" in text:  # the last line of the traceback of a worker
        text = text.strip().splitlines()[-1].partition(": ")[2]
        return _advice(text) or text
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is missing; pip install -r requirements.txt"
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        advice = ADVICE.get(error.errno or 0, "free some space, or name another file or folder")
        return f"{place}{error.strerror or error}; {advice}"
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "the GPU's memory is full; lower --batchsize, --image_size or --base_channels"
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, InputError):
        return text
    return _advice(text)


def _advice(text: str) -> str | None:
    """What to do about an error of torch, by its text; None if it is not known."""
    return next((advice for part, advice in RUNTIME_ERRORS.items() if part in text), None)


def _end(code: int, message: str) -> NoReturn:
    print(printable(message), file=sys.stderr)
    sys.exit(code)
