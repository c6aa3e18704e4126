"""The cores that this process may use."""

import math
import os
from pathlib import Path

# Of cgroup version 2 and 1: quota and period of the processor time, in microseconds.
CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
CGROUP_V1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def num_cores() -> int:
    """Return the number of cores, at least 1; a container's limit of processor time and the process's own cores count."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        files = [CGROUP_V2] if CGROUP_V2.exists() else list(CGROUP_V1)
        quota, period = " ".join(file.read_text() for file in files).split()
        limit = math.ceil(int(quota) / int(period)) if quota.isdecimal() else own
    except (OSError, ValueError):
        limit = own
    return max(1, min(own, limit))
