"""Output files: refused before the work whose result they are to hold, and written as a whole."""

import contextlib
import os
import secrets
import stat

from bsa._core import InvalidParamError


def check(path, source=None):
    """Raise the OSError that writing a file at `path` would end in, as far as that can be told; or
    InvalidParamError, if that is the file `source`, whose contents are still needed."""
    path = os.fsdecode(path)
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder, not a file")
    if os.path.exists(path) and not os.path.isfile(path):
        return  # a pipe or a device, which write() opens as it is
    if source is not None and _are_the_same(path, source):
        raise InvalidParamError(f"{path} is the file to read: it would be replaced")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: cannot write in the folder {folder}")


def _are_the_same(path, other):
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def check_ending(path, ending, otherwise):
    """Raise InvalidParamError if the name ends in another suffix; one without any, say /dev/stdout,
    may do. `otherwise`: what to do for others."""
    path = os.fsdecode(path)
    suffix = os.path.splitext(path)[1]
    if suffix.lower() not in ("", ending):
        raise InvalidParamError(f"{path}: what is written is {ending}, not {suffix}; {otherwise}")


def write(path, data):
    """Write a file under a temporary name, then rename it: nobody ever sees half of it. Errors are
    those of check(), or of a disk that is full."""
    check(path)
    path = os.fsdecode(path)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:  # a pipe or a device stays what it is
            file.write(data)
        return
    path = os.path.realpath(path)  # only now: that of /dev/stdout names a pipe by no path
    temporary = os.path.join(os.path.dirname(path), f".bsa-{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        with contextlib.suppress(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))  # as open() would leave it
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
