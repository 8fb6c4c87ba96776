"""The one way in which files are written: a crash at any moment leaves the old content or the new.

The new content goes into a folder ``.NAME.*.tmp`` beside the file, is flushed to the disk and renamed (a folder,
because safetensors makes temporary files of its own). A killed process may leave such a folder behind; nothing reads
it, and a later write of the same name removes it once it has not been touched for an hour (a younger one may belong
to a write that is still running).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

_STALE_AFTER_SECONDS = 3600.0
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_writable(path: str | Path) -> Path:
    """Return the file that a path leads to, links followed, if a file can be written there.

    Raises:
        FileNotFoundError: the folder that is to hold the file does not exist.
        NotADirectoryError: what should be that folder is a file.
        IsADirectoryError: the path is a folder.
        OSError: the path is a pipe, a socket or a device, which a file would replace, or a loop of links.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        _check_folder(target.parent, path)
        return target
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        error = IsADirectoryError if stat.S_ISDIR(mode) else OSError
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        message = f"it is {kind}, not a file; choose another path"
        raise error(code, message, str(path))
    return target


def _check_folder(folder: Path, path: str | Path) -> None:
    if not folder.exists():
        message = f"there is no folder {str(folder)!r}; create it first"
        raise FileNotFoundError(errno.ENOENT, message, str(path))
    if not folder.is_dir():
        message = f"{str(folder)!r} is not a folder"
        raise NotADirectoryError(errno.ENOTDIR, message, str(path))


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, atomically.

    Raises:
        OSError: the file cannot be written; see `check_writable`.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary file to write to, which becomes ``path`` when the block ends without an error.

    A link is followed and kept. An existing file keeps its permissions.

    Raises:
        OSError: the file cannot be written; see `check_writable`.
    """
    target = check_writable(path)
    _remove_stale(target)
    folder = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    folder.mkdir()
    temporary = folder / "content"
    try:
        temporary.touch()
        mode = (target if target.exists() else temporary).stat().st_mode
        yield temporary
        temporary.chmod(stat.S_IMODE(mode))  # safetensors gives the file to its owner alone
        _flush(temporary)
        check_writable(path)  # once more, because writing takes a while
        temporary.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if os.name == "posix":
        _flush(target.parent)


def _flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(target: Path) -> None:
    oldest = time.time() - _STALE_AFTER_SECONDS
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp")
    for folder in target.parent.iterdir():
        if ours.fullmatch(folder.name):
            with contextlib.suppress(OSError):  # another process may be removing it too
                if max(path.stat().st_mtime for path in (folder, *folder.iterdir())) < oldest:
                    shutil.rmtree(folder)
