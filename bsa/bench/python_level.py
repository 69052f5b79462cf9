"""The Python level: several processes, each of which measures everyone in turn (worker.py)."""

import json
import subprocess
import sys

from bsa.bench.results import Row

REFERENCE = "bytearray"
BSA, BSA_BLOCK = "bsa", "bsa Block"
SIZES = ("64 B", "1 KiB", "64 KiB", "1 MiB")


def measure(results, seconds, traces=(), tell=None):
    """Add all figures to `results`, each of a run of so many seconds. `tell(turns)` is called after
    each turn."""
    for turn in range(results.turns):
        found = _run_worker(turn, seconds, traces)
        for name, version in found["candidates"].items():
            results.candidates.setdefault(name, version)
        results.absent.update(found["absent"])
        results.checks = found["checks"]
        for entry in found["figures"]:
            row = Row(entry["row"], entry["what"], entry["unit"])
            if "value" in entry:
                results.add(turn, row, entry["candidate"], entry["value"])
            else:
                results.leave_out(row, entry["candidate"], entry["left_out"])
        if tell:
            tell(turn + 1)


def _run_worker(turn, seconds, traces):
    command = [sys.executable, "-m", "bsa.bench.worker", str(turn), str(seconds)]
    command += map(str, traces)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: exit status {done.returncode}")
    return json.loads(done.stdout)
