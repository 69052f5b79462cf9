"""Other allocators, as far as this machine has them: each takes the place of malloc by LD_PRELOAD."""

import ctypes.util
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """An allocator. `library` is what the loader finds it by; "" is the C library's own."""

    name: str
    library: str
    version: str

    @property
    def environment(self):
        cleared = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        return {**cleared, "LD_PRELOAD": self.library} if self.library else cleared

    def is_in(self, path):
        """Whether that file, from which malloc was taken, is this peer's."""
        return os.path.basename(path).startswith(self.library or "libc.")


GLIBC = Peer("glibc", "", platform.libc_ver()[1] or "of this system")
_DEBIAN = {  # name: name of the library, package
    "mimalloc": ("mimalloc", "libmimalloc2.0"),
    "jemalloc": ("jemalloc", "libjemalloc2"),
    "tcmalloc": ("tcmalloc_minimal", "libtcmalloc-minimal4"),
}


def find():
    """The peers that are here, and those that are not with what would bring them."""
    present = [GLIBC]
    absent = {}
    for name, (short, package) in _DEBIAN.items():
        library = ctypes.util.find_library(short)
        if library:
            present.append(Peer(name, library, _version(package) or library))
        else:
            absent[name] = f"not installed (Debian: {package})"
    return present, absent


def _version(package):
    if shutil.which("dpkg-query") is None:
        return ""
    command = ["dpkg-query", "-W", "-f", "${Version}", package]
    return subprocess.run(command, capture_output=True, text=True).stdout
