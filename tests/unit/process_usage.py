"""What a process uses, from /proc."""

import os
from pathlib import Path


def resident_bytes(pid: int | None = None) -> int:
    """Memory a process holds, native libraries' included; None: this process."""
    pages = Path(f"/proc/{os.getpid() if pid is None else pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """Processor time of all threads of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
