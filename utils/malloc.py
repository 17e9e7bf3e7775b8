"""Make glibc's malloc keep freed memory: returning it after every pass and requesting it again takes time."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8  # of malloc.h

PREDICTING = {M_TRIM_THRESHOLD: -1, M_MMAP_MAX: 0, M_ARENA_MAX: 1}
# Blocks above 32 MiB are returned: kept, they would fragment memory, and training would take a tenth more of it.
TRAINING = {M_TRIM_THRESHOLD: -1, M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 << 20, M_ARENA_MAX: 0}


def set_options(options: dict[int, int]) -> None:
    """Set options of malloc for this process, ``PREDICTING`` or ``TRAINING``; with other C libraries, do nothing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in options.items():
        mallopt(option, value)
