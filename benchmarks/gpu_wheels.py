"""What a GPU machine without a network lacks, as wheels: `benchmarks/gpu.sh carry`.

    python -m benchmarks.gpu_wheels [--python 3.12] [FOLDER]

The machine is expected to have PyTorch and what is too large to carry (`ON_THE_MACHINE`). All other
packages that `router-r1-graph[train]` needs are downloaded in the versions that are installed here,
without their dependencies. The checkout and the wheels have to fit into one call, 64 MB in all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import requires, version
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
WHEELS = ROOT / ".whl"
MOST_BYTES = 64_000_000
"""What one call may carry: the checkout and the wheels."""
ON_THE_MACHINE = {
    *("accelerate", "huggingface-hub", "matplotlib", "numpy", "pandas", "peft", "psutil"),
    *("pyarrow", "safetensors", "tiktoken", "tokenizers", "torch", "transformers"),
}
"""Packages that the machine has, with what they need. vLLM has hundreds of MB: not carried."""
COMMIT_FILE = "commit.txt"
"""The carried checkout has no history, so its commit stands beside the wheels."""


def lacking(python: str) -> dict[str, str]:
    """Return the packages to carry, and the version of each that is installed here.

    Args:
        python: the machine's Python, such as `3.12`.
    """
    there = {
        **default_environment(),
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    found: dict[str, str] = {}
    waiting = [Requirement("router-r1-graph[train]")]
    while waiting:
        parent = waiting.pop()
        for text in requires(parent.name) or ():
            child = Requirement(text)
            name = canonicalize_name(child.name)
            wanted = child.marker is None or any(
                child.marker.evaluate({**there, "extra": extra}) for extra in {"", *parent.extras}
            )
            if not wanted or name in ON_THE_MACHINE or (name in found and not child.extras):
                continue
            waiting.append(child)
            if name != "router-r1-graph":
                found[name] = version(name)
    return dict(sorted(found.items()))


def download(packages: dict[str, str], folder: Path, python: str) -> None:
    """Download wheels for that Python on 64-bit Linux, and no others."""
    tags = [f"cp{python.replace('.', '')}", "abi3", "none"]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary", ":all:", "--dest", str(folder)),
            *("--python-version", python, "--implementation", "cp"),
            *(part for tag in tags for part in ("--abi", tag)),
            *(part for glibc in _GLIBC for part in ("--platform", f"manylinux_{glibc}_x86_64")),
            *("--platform", "manylinux2014_x86_64"),
            *(f"{name}=={number}" for name, number in packages.items()),
        ],
        check=True,
    )


_GLIBC = ("2_5", "2_12", "2_17", "2_24", "2_26", "2_27", "2_28", "2_31", "2_34")


def too_large(checkout: int, wheels: int) -> str:
    """Return why so many bytes cannot be carried; "" where they can."""
    if checkout + wheels <= MOST_BYTES:
        return ""
    return (
        f"the checkout ({checkout / 1e6:.1f} MB) and the wheels ({wheels / 1e6:.1f} MB) are more "
        f"than the {MOST_BYTES / 1e6:.0f} MB of a call: name larger packages in ON_THE_MACHINE, if "
        "the machine has them"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=WHEELS)
    parser.add_argument("--python", default="3.12", help="the machine's (3.12)")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for old in given.folder.glob("*.whl"):
        old.unlink()
    packages = lacking(given.python)
    download(packages, given.folder, given.python)
    commit = _git("describe", "--always", "--dirty").strip()
    (given.folder / COMMIT_FILE).write_text(commit + "\n", encoding="utf-8")
    checkout, wheels = _bytes(_tree()), _bytes(given.folder.iterdir())
    if refused := too_large(checkout, wheels):
        print(f"gpu_wheels: {refused}", file=sys.stderr)
        return 1
    print(
        f"{given.folder}: {len(packages)} wheels, {wheels / 1e6:.1f} MB; the checkout of {commit} "
        f"has {checkout / 1e6:.1f} MB; a call carries at most {MOST_BYTES / 1e6:.0f} MB"
    )
    return 0


def _tree() -> Iterator[Path]:
    """Yield the files that travel: tracked ones, and untracked ones that are not ignored."""
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return (ROOT / name for name in names if name)


def _bytes(files: Iterable[Path]) -> int:
    return sum(file.lstat().st_size for file in files if file.is_file())


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
