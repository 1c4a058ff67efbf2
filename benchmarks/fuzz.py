"""Coverage-guided fuzzing of what reads bytes from outside (`benchmarks/fuzz_targets.py`).

    make fuzz                                        ten minutes over all targets
    make fuzz SECONDS=60                             a minute
    python -m benchmarks.fuzz pool trace --seconds 60

Inputs that reach new code are kept in runs/fuzz/TARGET, where the next run goes on from them. One
input of each finding is saved under runs/fuzz/found/TARGET, and printed. The exit code is 1 if
there is any. Needs atheris (libFuzzer for Python, Linux only), of the extra `security`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from router_r1_graph.words import counted

ROOT = Path(__file__).parent.parent
NAMES = ("protocol", "reply", "pool", "trace", "request")
_INSTRUMENTED = ["router_r1_graph", "yaml"]
_LONGEST_SECONDS = 10
"""An input that takes longer is a finding."""
_LONGEST_INPUT = 4096


def _place(error: BaseException) -> str:
    """Return what tells findings apart: the class, our last line, and the innermost function."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "router_r1_graph" in f.filename or "fuzz_targets" in f.filename]
    last = (ours or frames)[-1]
    within = "" if isinstance(error, RecursionError) else f", in {frames[-1].name}"
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}{within}"


def keeping(check: Callable[[bytes], None], found: Path) -> Callable[[bytes], None]:
    """Return a target that saves and prints the first input of each finding, and goes on."""
    seen: set[str] = set()

    def tried(data: bytes) -> None:
        try:
            check(data)
        except Exception as error:
            place = _place(error)
            if place in seen:
                return
            seen.add(place)
            file = found / hashlib.sha256(data).hexdigest()[:12]
            file.write_bytes(data)
            print(f"FOUND {file}\n  {place}: {str(error)[:200]!r}\n  {data[:300]!r}", flush=True)

    return tried


def saved(found: Path) -> set[tuple[str, int]]:
    """Return the name of each saved input, and when it was saved, in ns since the epoch.

    What is found again, by a later run, is saved again: under the same name, at another time.
    """
    return {(file.name, file.stat().st_mtime_ns) for file in found.iterdir()}


def fuzz(name: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    logging.disable()
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from .fuzz_targets import TARGETS
    target, inputs, found = TARGETS[name], corpus / name, corpus / "found" / name
    for seed in target.seeds():
        target.check(seed)  # what is loaded at the first use is no slow input
        (inputs / hashlib.sha256(seed).hexdigest()[:12]).write_bytes(seed)
    words = corpus / f"{name}.dict"
    escaped = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in target.words)
    words.write_text("".join(f'"{word}"\n' for word in escaped), encoding="utf-8")
    options = {
        **{"max_total_time": seconds, "timeout": _LONGEST_SECONDS, "max_len": _LONGEST_INPUT},
        **{
            "dict": words,
            "artifact_prefix": f"{found}/",
            "print_final_stats": 1,
            "rss_limit_mb": 0,
        },
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(inputs)], keeping(target.check, found))
    atheris.Fuzz()


def fuzz_all(names: list[str], seconds: int, corpus: Path) -> int:
    """Fuzz targets one after the other, each in a process; return how many findings there are."""
    findings = 0
    for name in names:
        found = corpus / "found" / name
        for folder in (corpus / name, found):
            folder.mkdir(parents=True, exist_ok=True)
        before = saved(found)
        log = corpus / f"{name}.log"
        arguments = [name, "--seconds", str(seconds // len(names)), "--corpus", str(corpus)]
        with log.open("w", encoding="utf-8") as file:
            ended = subprocess.run(
                [sys.executable, "-m", "benchmarks.fuzz", "--alone", *arguments],
                stderr=file,
                cwd=ROOT,
                check=False,
            )
        new = saved(found) - before
        findings += len(new) or int(ended.returncode != 0)
        tried = [
            line.split()[-1] for line in log.read_text().splitlines() if "executed_units" in line
        ]
        said = f"{name}: {tried[0] if tried else '?'} inputs, {counted(len(new), 'finding')}"
        broken = ended.returncode and f" (exit code {ended.returncode}: {log})"
        print(said + (broken or ""), flush=True)
    return findings


def main() -> int:
    """Run it; the exit code is 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(NAMES)}; all when left out")
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--corpus", type=Path, default=ROOT / "runs" / "fuzz")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.targets or list(NAMES)
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(NAMES)}")
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: make setup EXTRAS=security")
    if given.alone:
        fuzz(names[0], given.seconds, given.corpus.resolve())
        return 0
    return bool(fuzz_all(names, given.seconds, given.corpus.resolve()))


if __name__ == "__main__":
    sys.exit(main())
