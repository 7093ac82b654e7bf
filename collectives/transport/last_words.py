"""What a rank prints before it ends its job: launchers read it through pipes, and drop it when a job is aborted."""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import Final

_STDERR: Final = 2
_READ_S: Final = 5.0  # that a launcher which does not come to the processor has to read its pipe
_PASSED_ON_S: Final = 0.3  # that it has, afterwards, to pass on what it read


def wait_for_last_words() -> None:
    """Return when whoever reads the standard error of this process has had the time to take what was printed."""
    sys.stderr.flush()
    until_s = time.monotonic() + _READ_S
    while _unread_bytes() and time.monotonic() < until_s:
        time.sleep(0.01)
    time.sleep(_PASSED_ON_S)


def _unread_bytes() -> int:
    """Return how much lies in the pipe of standard error; 0 where it is none, or where the system does not say."""
    try:
        import fcntl
        import termios

        if not stat.S_ISFIFO(os.fstat(_STDERR).st_mode):
            return 0
        return int.from_bytes(fcntl.ioctl(_STDERR, termios.FIONREAD, bytes(4)), sys.byteorder)
    except (ImportError, OSError):
        return 0
