"""Files: JSON lines and CSV are read here, and outputs are checked before anything is paid."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, cast

from .errors import ConfigError
from .outside import writable, writable_within

fcntl: Any
try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such locks
    fcntl = None

_LARGEST_CELL = 64 * 1024 * 1024
"""The most characters of a cell: cells hold whole replies, and `csv` takes 131,072 by default."""

_DELIMITERS = ",;\t"

_FIELDS = {"traces": ("version", "scratchpad"), "replies": ("question", "candidate", "reply")}
"""The fields that each line of a kind of file has, at least."""


def has_file(path: str | Path) -> bool:
    """Return whether there is a file of this name; False for a name that no file can have."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """Yield the number of each line and its object, or a `ValueError` that says what is wrong.

    Blank lines are skipped, and a byte-order mark is no part of the first one. A file whose name
    ends in `.gz` is decompressed. Every text can be written again.

    Raises:
        OSError: the file cannot be read.
    """
    number = 0
    try:
        with opened(path, "rb") as file:
            for number, value in objects_in(file):
                yield number, value
    except (EOFError, zlib.error) as error:  # of a compressed file whose writer was killed
        yield number + 1, ValueError(f"the compressed file is broken there: {error}")


def objects_in(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """Yield what lines hold, as `read_jsonl` does."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = writable_within(json.loads(line.decode("utf-8-sig")))
        except (ValueError, RecursionError) as error:
            yield number, ValueError(f"not JSON: {error}")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            yield number, ValueError(f"a line is a JSON object, not {value!r:.80}")


def whole_objects(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file that programs append to, without lines that a kill has torn.

    A file that is not there holds none.

    Raises:
        OSError: the file cannot be read.
    """
    if Path(path).exists():
        with Path(path).open("rb") as file:
            yield from (value for _, value in objects_in(file) if isinstance(value, dict))


@contextmanager
def csv_reader(path: Path) -> Iterator[csv.DictReader[str]]:
    """Open a CSV file; a byte-order mark is no part of its first column's name.

    The separator is the most frequent one in its first line: a comma, a semicolon or a tab.
    Spreadsheets write the latter two if the comma is a decimal point.

    Raises:
        OSError: the file cannot be read.
        ConfigError: it is not in UTF-8.
    """
    csv.field_size_limit(_LARGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = max(_DELIMITERS, key=file.readline().count)
            file.seek(0)
            yield csv.DictReader(map(writable, file), delimiter=delimiter)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not in UTF-8 ({error.reason}); save it as UTF-8") from error


def opened(path: str | Path, mode: str) -> IO[Any]:
    """Open a file as `open` does, in UTF-8 where it is text; through gzip if its name ends so."""
    encoding = None if "b" in mode else "utf-8"
    if Path(path).suffix == ".gz":
        mode = mode if encoding is None else f"{mode}t"
        return cast("IO[Any]", gzip.open(path, mode, encoding=encoding))
    return Path(path).open(mode, encoding=encoding)


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


def require_lines(option: str, file: Path | None, what: Literal["traces", "replies"]) -> None:
    """Check that a file can be appended to, and holds lines of the same kind if it holds any.

    The first line is looked at.

    Args:
        option: names it in errors.
        file: None = none is wanted.
        what: the kind of its lines.

    Raises:
        ConfigError: it cannot, or it holds something else.
    """
    require_file(option, file)
    if file is None or not has_file(file):
        return
    for _, row in read_jsonl(file):
        if isinstance(row, ValueError) and _is_torn(file):
            return  # its writer was killed; the next line mends it
        if isinstance(row, ValueError) or any(name not in row for name in _FIELDS[what]):
            raise ConfigError(f"{option} {file}: holds something else than {what}; name another")
        return


def _is_torn(file: Path) -> bool:
    """Whether all that a file holds is the begin of a JSON object's line."""
    text = file.read_bytes().strip(b" \t\r")
    return text.startswith(b"{") and b"\n" not in text


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


def write_whole(path: Path, text: str) -> None:
    """Write a text so that the file holds all of it or its old content, and keep its mode.

    Line ends are written unchanged. A link stays a link; its target is written.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    path = path.resolve()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        if path.exists():
            shutil.copymode(path, name)
        else:
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(name, 0o666 & ~umask)  # mkstemp's file is its owner's only
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def append_line(path: str | Path, line: str) -> None:
    """Append a line; other processes may do so at the same time.

    A last line that a kill or a full disk has torn is mended: it gets its line end if it is whole
    JSON, and is removed if it is not, since no program could read the lines after it.

    Raises:
        OSError: it cannot be written.
    """
    with Path(path).open("ab+") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        if size := file.seek(0, os.SEEK_END):
            file.seek(size - 1)
            if file.read() != b"\n":
                _mend(file, size)
        file.write(line.encode() + b"\n")


def _mend(file: IO[bytes], size: int) -> None:
    """End or cut off the last line of a file."""
    start, tail = size, b""
    while start and b"\n" not in tail:
        start = max(0, start - 65_536)
        file.seek(start)
        tail = file.read(size - start)
    last = tail.rpartition(b"\n")[2]
    try:
        json.loads(last)
        torn = False
    except (ValueError, RecursionError):
        torn = last.strip(b"\0")[:1] in (b"{", b"")  # what else stands there is not ours, and stays
    if torn:
        file.truncate(size - len(last))
    else:
        file.write(b"\n")


@contextmanager
def only_writer(option: str, folder: Path) -> Iterator[None]:
    """Lock a folder against other processes that write there; it is made if it is missing.

    Raises:
        ConfigError: another process has locked it, or no folder can be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL
        raise ConfigError(
            f"{option} {str(folder)!r}: no folder can be made there: {error}"
        ) from None
    if fcntl is None:  # pragma: no cover
        yield
        return
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ConfigError(
                f"{option} {folder}: another run (process {file.read() or 'unknown'}) is writing "
                "there; wait for it, or name another folder"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _unwritable(option: str, path: Path, error: OSError | ValueError) -> ConfigError:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return ConfigError(f"{option} {path}: cannot be written: {why}")
