"""The one exception for faults in what the user gave."""


class InputError(Exception):
    """A missing folder, an unreadable file, a wrong flag: one line that says what, where and what to do.

    The scripts print it as ``error: ...`` and end with exit code 2, without a traceback.
    """
