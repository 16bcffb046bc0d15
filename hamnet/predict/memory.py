"""Memory: what a user allows, and what this process has taken."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from hamnet.errors import ConfigError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def parse_memory(text: str) -> int:
    """Bytes meant by "4GB", "800 MB", "2GiB" or "4000000000".

    Raises:
        ConfigError: the text is no size.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?I?)B?\s*", text.upper())
    if found is None or found.group(2) not in UNITS or float(found.group(1)) <= 0:
        raise ConfigError(f"memory {text!r} is no size: write it as 4GB, 800MB or 2GiB")
    return int(float(found.group(1)) * UNITS[found.group(2)])


def resident_memory() -> int:
    """Bytes that this process holds now; the peak where the system does not say."""
    return _status("VmRSS:") or peak_memory()


def peak_memory() -> int:
    """Largest number of bytes that this process has held since it began or since `reset_peak`."""
    unit = 1 if sys.platform == "darwin" else 1024  # kilobytes except on macOS
    return _status("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> None:
    """Count the peak from now on, where the system can (Linux); elsewhere it goes on from the process's start."""
    try:
        _RESET.write_text("5")
    except OSError:
        return


def _status(key: str) -> int | None:
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None
