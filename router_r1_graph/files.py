"""Whether what a command is to write can be written, asked before anything is paid for."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .errors import ConfigError


def require_file(option: str, file: Path | None) -> None:
    """Check that a file can be appended to, and leave nothing behind.

    Raises:
        ConfigError: it cannot.
    """
    if file is None:
        return
    try:
        new = not file.exists()
        file.open("a", encoding="utf-8").close()
        if new:
            file.unlink()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise _unwritable(option, file, error) from error


def require_folder(option: str, folder: Path | None) -> None:
    """Check that a folder can be made or written into, and leave nothing behind.

    Raises:
        ConfigError: it cannot.
    """
    if folder is None:
        return
    try:
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        if not there.is_dir():
            raise ConfigError(f"{option} {folder}: cannot be written: {there} is a file")
        tempfile.TemporaryFile(dir=there).close()
    except (OSError, ValueError) as error:
        raise _unwritable(option, folder, error) from error


def _unwritable(option: str, path: Path, error: OSError | ValueError) -> ConfigError:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return ConfigError(f"{option} {path}: cannot be written: {why}")
