"""The command line, and other programs, in this process: to start Python anew takes seconds.

A program finds what one of its own process would: arguments, streams, environment and folder. What
it leaves behind (environment, folder, import path, signal handlers) is put back when it ends.

A test that needs a process of its own, to kill it or to have two, forks this one: what is imported
here is imported there.
"""

from __future__ import annotations

import fcntl
import io
import multiprocessing
import os
import runpy
import signal
import sys
import termios
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from router_r1_graph.cli import main

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STREAMS = ("stdin", "stdout", "stderr")


@dataclass(frozen=True)
class Done:
    """What a program has left, under the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def cli(
    *args: object,
    input: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    encoding: str = "utf-8",
) -> Done:
    """Run `router-r1 ARGS` by its entry point, which makes one line of an error that is ours.

    Args:
        *args: what stands behind the program's name.
        input: all that standard input, which is no terminal, has.
        env: environment variables beside those that there are.
        cwd: the folder that it runs in.
        encoding: of its output.
    """
    argv = ["router-r1", *map(str, args)]
    return _finish(main, argv, input=input, env=env, cwd=cwd, encoding=encoding)


def program(
    file: Path, *args: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Done:
    """Run a Python file as `python FILE ARGS` does; what it warns of is shown, and no error."""

    def start() -> None:
        sys.path.insert(0, str(file.parent))
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            runpy.run_path(str(file), run_name="__main__")

    return _finish(start, [str(file), *map(str, args)], env=env, cwd=cwd)


def forked(work: Callable[..., object], *args: object) -> BaseProcess:
    """Start a function in a process of its own, a copy of this one that ends with the tests."""
    process = multiprocessing.get_context("fork").Process(target=work, args=args, daemon=True)
    process.start()
    return process


class Command:
    """`router-r1 ARGS` in a process of its own, forked: to signal it or to sit at its terminal.

    Attributes are as those of `subprocess.Popen`.

    Args:
        *args: what stands behind the program's name.
        env: environment variables beside those that there are; without COLUMNS unless it is here.
        session: whether standard input is a terminal whose keys send the program signals.
        **files: file descriptors for stdin, stdout and stderr; where there is none, a pipe.
    """

    def __init__(
        self,
        *args: object,
        env: Mapping[str, str] | None = None,
        session: bool = False,
        **files: int,
    ) -> None:
        pipes = {name: os.pipe() for name in STREAMS if name not in files}
        ours = {name: ends[name == "stdin"] for name, ends in pipes.items()}
        theirs = {name: ends[name != "stdin"] for name, ends in pipes.items()}
        self.stdin, self.stdout, self.stderr = (
            os.fdopen(ours[name], "w" if name == "stdin" else "r") if name in ours else None
            for name in STREAMS
        )
        self._process = forked(
            _command, [*map(str, args)], {**files, **theirs}, [*ours.values()], env or {}, session
        )
        for end in theirs.values():
            os.close(end)

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, if it has not ended: it does not outlive the test."""
        self._process.kill()
        self._process.join()
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                file.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self) -> int | None:
        self._process.join()
        return self.returncode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def communicate(self) -> tuple[str, str]:
        """Wait for its end, and return what it has written to its pipes."""
        written = [file.read() if file is not None else "" for file in (self.stdout, self.stderr)]
        self.wait()
        return written[0], written[1]


def _command(
    args: list[str],
    files: Mapping[str, int],
    ours: list[int],
    env: Mapping[str, str],
    session: bool,
) -> None:
    """Be `router-r1`, with nothing of what pytest has changed in this process."""
    for end in ours:
        os.close(end)
    for number, name in enumerate(STREAMS):
        os.dup2(files[name], number)
        setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    if session:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("default")
    os.environ.pop("COLUMNS", None)
    os.environ.update(env)
    sys.argv = ["router-r1", *args]
    main()


def _finish(
    start: Callable[[], object],
    argv: list[str],
    *,
    input: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    encoding: str = "utf-8",
) -> Done:
    """Run to the end; an exception that a process would die of is raised."""
    stdout, stderr = _stream(encoding=encoding), _stream(errors="backslashreplace")
    code: Any = 0
    with _as_a_process(argv, _stream(input.encode()), env or {}, cwd):
        with redirect_stdout(stdout), redirect_stderr(stderr):
            try:
                start()
            except SystemExit as end:
                code = end.code or 0
                if not isinstance(code, int):  # sys.exit("what is wrong")
                    print(code, file=stderr)
                    code = 1
    return Done(code, _written(stdout, encoding), _written(stderr))


@contextmanager
def _as_a_process(argv: list[str], stdin: Any, env: Mapping[str, str], cwd: Path | None):
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    environment = dict(os.environ)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", argv)
            patch.setattr(sys, "path", [*sys.path])
            patch.setattr(sys, "stdin", stdin)
            patch.chdir(cwd or Path.cwd())
            os.environ.update(env)
            yield
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stream(data: bytes = b"", encoding: str = "utf-8", errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding, errors, write_through=True)


def _written(stream: io.TextIOWrapper, encoding: str = "utf-8") -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode(encoding).replace("\r\n", "\n")
