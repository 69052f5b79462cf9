"""What was measured on, as far as the system tells."""

import os
import platform
import sys
import time

import bsa

_CGROUP = "/sys/fs/cgroup/memory."


def processors():
    """How many this process may use, where that can be told; else how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory():
    """Bytes that can be used without swapping, within the limit of the control group."""
    memory = _fields("/proc/meminfo").get("MemAvailable", "0 kB")
    available = int(memory.split()[0]) * 1024
    limit, used = _first_line(_CGROUP + "max"), _first_line(_CGROUP + "current")
    if limit.isdigit() and used.isdigit():
        available = min(available, int(limit) - int(used))
    return available


def description(quick):
    """A dict of texts and numbers. `quick`: whether the run is one."""
    return {
        "quick": quick,
        "processor": _fields("/proc/cpuinfo").get("model name", platform.machine()),
        "processors": processors(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system() + " " + ".".join(platform.release().split(".")[:2]),
        "huge_pages": _first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load": round(os.getloadavg()[0], 2),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "bsa": bsa.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def sentence(machine):
    """The description for people."""
    quick = " A quick run: less exact." if machine["quick"] else ""
    return (
        f"{machine['date']}: {machine['processor']}, {machine['processors']} processors, "
        f"{machine['system']}, {machine['libc']}, Python {machine['python']}; load at the start: "
        f"{machine['load']:.2f}.{quick}"
    )


def _first_line(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _fields(path):
    """`name : value` lines; of repeated names the first."""
    fields = {}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                name, _, value = line.partition(":")
                fields.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    return fields
