"""The C library's allocator, told to keep what readers of large ranges give back.

By default glibc gives a freed megabyte back to the kernel at once and takes it anew for the next result; the kernel
clears each page again. Of a warm read of megabytes that is most of the time. With a higher threshold the next result
takes the memory of the last one. What a process keeps at most is the threshold; see mallopt(3).
"""

import os
import sys

__all__ = ["CHOSEN", "KEEP_BYTES", "keep"]

KEEP_BYTES = 64 << 20
"""What is kept by default, in bytes."""

# Results above this come from the kernel and go back to it, as ever: few programs make many of them.
_LARGE_BYTES = 4 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Variables by which users choose an allocator, or say what they want of this one."""


def keep(nbytes: int) -> bool:
    """Have up to so many freed bytes kept for the next results. It holds for the process, and cannot be taken back.

    Args:
        nbytes: How many; 0 changes nothing.

    Returns:
        Whether that was set. It is not where the allocator is another one than glibc's, where the environment has
        chosen otherwise, and where `ctypes` is not loaded: that costs more than small programs gain, and numpy has it.
    """
    ctypes = sys.modules.get("ctypes")
    if not nbytes or ctypes is None or any(os.environ.get(name) for name in CHOSEN):
        return False
    try:
        library = ctypes.CDLL(None)
        if not hasattr(library, "gnu_get_libc_version"):
            return False  # another C library's mallopt, if it has one, has other numbers
        kept = library.mallopt(_TRIM_THRESHOLD, min(nbytes, (1 << 31) - 1))
        return bool(kept and library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES))
    except (OSError, AttributeError):
        return False
