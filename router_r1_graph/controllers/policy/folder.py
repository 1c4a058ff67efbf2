"""The folder of a trained policy: the settings of its turns, its prompt template and tokenizer.

A policy folder is a normal Hugging Face model with two more files. They are read alike whether the
policy runs in this process or on a server that holds its weights. Imports no torch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ... import protocol
from ...candidates.settings import TokenLimit
from ...errors import ControllerError
from ...invalid import explain
from .packaged import PREFIX, packaged_model

#: Policies that come with the package, by name.
SHIPPED = Path(__file__).parents[2] / "policies"
STOP = ("<information", "</answer>")
SETTINGS_FILE = "router_r1.json"
TEMPLATE_FILE = "prompt_template.txt"


@dataclass(frozen=True)
class PolicySettings:
    """The settings of a policy's turns; kept beside its weights as `router_r1.json`.

    Attributes:
        protocol_version: the version of the tag language that it was trained on.
        stop: texts that end a turn. A turn may hold several calls, and then ends in an end token of
            the model, or where a model begins to write the replies itself (such a tag is left open,
            so it does not count). The paper's are `</search>` and `</answer>`: one call a turn.
        max_new_tokens: the most tokens of one turn.
        max_context_tokens: the longest context of a turn; beyond it, the run ends instead.
        observations: `plain` = they continue the same assistant turn, as in the paper; `chat` =
            they are a user message of the chat template, where the tokenizer has one.
        thinking: whether a model's own thinking is on, if its chat template can switch it. The
            protocol has thoughts of its own.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    protocol_version: int = protocol.VERSION
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = STOP
    max_new_tokens: TokenLimit = 256
    max_context_tokens: TokenLimit = 4096
    observations: Literal["plain", "chat"] = "plain"
    thinking: bool = False


UNTRAINED = PolicySettings(max_new_tokens=1024, observations="chat")
"""The settings of a model that comes without any: it was not trained here, and knows no protocol
but its chat template."""


@dataclass(frozen=True)
class PolicyFolder:
    """A policy by its path: a folder, a model on the hub (`org/name`) or in a package, or `demo`.

    `package:NAME` is the model that a Python package carries as a GGUF file. `demo` is the policy
    that comes with this package, made by training/configs/demo.yaml.

    Raises:
        ControllerError: there is no such folder, and the path is no name of a model either.
    """

    path: str

    def __post_init__(self) -> None:
        if self.in_package or self.folder.is_dir() or self.on_hub:
            return
        if Path(self.path).exists():
            raise ControllerError(f"policy {self.path!r}: a file; a policy is a folder")
        raise ControllerError(
            f"policy {self.path!r}: no model there: there is no such folder, and the name of a "
            "model on the Hugging Face hub reads org/name"
        )

    @property
    def folder(self) -> Path:
        """The local folder, if the policy is not on the hub.

        Raises:
            ControllerError: the model of a package cannot be had.
        """
        if self.in_package:
            return packaged_model(self.path.removeprefix(PREFIX))
        here = Path(self.path)
        is_shipped = re.fullmatch(r"\w+", self.path) and (SHIPPED / self.path).is_dir()
        return SHIPPED / self.path if is_shipped and not here.is_dir() else here

    @property
    def source(self) -> str:
        """The path or name that transformers loads."""
        return self.path if self.on_hub else str(self.folder)

    @property
    def in_package(self) -> bool:
        """Whether a Python package carries the model."""
        return self.path.startswith(PREFIX)

    @property
    def on_hub(self) -> bool:
        """Whether the path can only be a model on the hub.

        A path that begins with an existing local folder was meant as a folder, and is mistyped.
        """
        if (
            self.in_package
            or self.folder.exists()
            or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", self.path)
        ):
            return False
        first = self.folder.parts[0]
        return first != "runs" and not Path(first).is_dir()

    def settings(self) -> PolicySettings:
        """Return the settings of its turns; `UNTRAINED` for a model that was not trained here.

        Raises:
            ControllerError: the file cannot be used, or the policy speaks another version of the
                protocol.
        """
        file = self._file(SETTINGS_FILE)
        settings = _read(file) if file else UNTRAINED
        if settings.protocol_version != protocol.VERSION:
            raise ControllerError(
                f"policy {self.path!r}: trained on protocol version {settings.protocol_version}; "
                f"this release speaks version {protocol.VERSION}"
            )
        return settings

    @property
    def is_adapter(self) -> bool:
        """Whether it holds changes to another model's weights (LoRA), not a model."""
        return self._file("adapter_config.json") is not None

    @property
    def base(self) -> PolicyFolder:
        """The model that an adapter changes.

        Raises:
            ControllerError: its `adapter_config.json` names none, or cannot be read.
        """
        file = self._file("adapter_config.json")
        try:
            name = json.loads(file.read_bytes())["base_model_name_or_path"] if file else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self.unusable("adapter", error) from error
        if not name or not isinstance(name, str):
            raise ControllerError(
                f"policy {self.path!r}: adapter_config.json does not name the model that it changes"
            )
        return PolicyFolder(name)

    def check(self) -> None:
        """Raise ControllerError if there is neither a model nor an adapter, or it is a pickle."""
        if self.is_adapter and not self._file("adapter_model.safetensors"):
            raise ControllerError(
                f"policy {self.path!r}: an adapter without its weights (adapter_model.safetensors "
                "is missing)"
            )
        if not (self.on_hub or self.is_adapter or self._file("config.json")):
            raise ControllerError(f"policy {self.path!r}: no model there (config.json is missing)")

    @property
    def template(self) -> Path | None:
        """Its prompt template; None = the library's."""
        return self._file(TEMPLATE_FILE)

    def end_ids(self) -> frozenset[int]:
        """Return the tokens that end a turn, by the generation config or else the model's.

        Raises:
            ControllerError: the file cannot be used.
        """
        file = self._file("generation_config.json") or self._file("config.json")
        try:
            config = json.loads(file.read_bytes()) if file else {}
            return token_ids(config.get("eos_token_id"))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise self.unusable("end token", error) from error

    def _file(self, name: str) -> Path | None:
        """Return one of its files, from the hub's cache or the hub if it is there; None = none.

        Raises:
            ControllerError: the hub does not answer.
        """
        if not self.on_hub:
            file = self.folder / name
            return file if file.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.constants import is_offline_mode
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.path, name))
        except EntryNotFoundError as error:
            # A hub that cannot be reached is not one without the file, unless that is wanted.
            if isinstance(error, LocalEntryNotFoundError) and not is_offline_mode():
                raise self.unusable(name, error) from error
            return None
        except Exception as error:  # the hub raises many types
            raise self.unusable(name, error) from error

    def tokenizer(self) -> Any:
        """Load its tokenizer, by transformers; an adapter without one has that of its model.

        Raises:
            ControllerError: there is none, or it cannot be read.
            ImportError: transformers is not installed.
        """
        if self.is_adapter and self._file("tokenizer_config.json") is None:
            return self.base.tokenizer()
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.source)
        except Exception as error:  # broken files and the hub raise many types
            raise self.unusable("tokenizer", error) from error

    def unusable(self, what: str, error: Exception) -> ControllerError:
        """Return a one-line error: which part of the policy cannot be loaded, and why."""
        where = "from the Hugging Face hub" if self.on_hub else "from this folder"
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return ControllerError(f"policy {self.path!r}: no {what} can be loaded {where}: {why}")


def token_ids(eos_token_id: int | list[int] | None) -> frozenset[int]:
    """Return the end tokens of a config of transformers: it names one, several, or none.

    >>> sorted(token_ids([2, 1]))
    [1, 2]
    """
    if eos_token_id is None:
        return frozenset()
    return frozenset([eos_token_id] if isinstance(eos_token_id, int) else eos_token_id)


_SETTINGS = TypeAdapter(PolicySettings)
_FIX = "correct it, or delete it to ask the policy with the defaults"


def _read(file: Path) -> PolicySettings:
    """Read the settings; an error says in one line what is wrong and what to do."""
    try:
        return _SETTINGS.validate_json(file.read_bytes(), strict=True)
    except OSError as error:
        raise ControllerError(f"{file}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        why = explain(error, lambda _: PolicySettings.__dataclass_fields__)
    raise ControllerError(f"{file}: {why}; {_FIX}")
