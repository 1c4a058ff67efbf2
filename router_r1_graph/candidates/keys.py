"""Keys and other secrets: read from the environment, and removed from texts.

A secret comes from the environment: by `api_key_env`, or by `{env: NAME}` anywhere in the options.
"""

from __future__ import annotations

import json
import logging
import os
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import takewhile
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

#: How the keys of the big providers begin. After a short beginning, only letters and digits count:
#: `hf_hub_download` and `pplx-7b-online` are no keys.
_KEY = re.compile(
    r"\b(?P<begin>"
    r"sk-(?=[\w.+/=-]{6})|"  # OpenAI, Anthropic, OpenRouter, DeepSeek
    r"AIza(?=[\w-]{6})|AQ\.(?=[\w-]{20})|ya29\.(?=[\w-]{6})|"  # Google
    r"eyJ(?=[\w-]{8,500}\.eyJ)|bce-v3/(?=[\w-]{8})|"  # tokens of MiniMax, Azure and others; Baidu
    r"nvapi-(?=[\w-]{16})|lsv2_(?=\w{16})|github_pat_(?=\w{16})|"  # NVIDIA, LangSmith, GitHub
    r"(?:gsk_|xai-|hf_|r8_|pplx-|fw_|csk-|tgp_v1_|ABSK|AKIA|ASIA|gh[pousr]_|glpat-|tvly-|dapi|"
    r"vck_|jina_|esecret_)"
    r"(?=[A-Za-z0-9]{16})"
    r")[\w.+/=-]+"
)
#: Places of keys in any form: headers, parameters of an address, a user's password.
_PLACE = re.compile(
    r"(?P<begin>\bBearer\s+|(?i:"
    r"\bauthorization['\"]?\s*[:=]\s*['\"]?(?:basic\s+|token\s+)?(?!bearer)|"
    r"\b(?:api[-_]?key|access[-_]?token|client[-_]?secret|subscription-key)['\"]?\s*[:=]\s*['\"]?|"
    r"[?&]key=))(?!\*)[\w.+/=~-]{6,}"
)
# A scheme is short: without a bound, a long word is read again from each of its letters.
_PASSWORD = re.compile(r"(?P<begin>\b[a-z][a-z0-9+.-]{0,30}://)[^\s/@'\"]+@")
_SHORTEST = 6
"""The fewest characters of a secret: a shorter one may occur in any text by chance."""

#: How the names of secrets end, wherever they stand. A key of a mapping (`prompt_cache_key`), a
#: number of tokens and a token of a vocabulary (`pad_token`) are none.
_SECRET_NAME = re.compile(
    r"((access|account|api|app|auth|consumer|encryption|function|license|master|private|secret|"
    r"service|shared|signing|ssh|storage|subscription)[-_]?key|"
    r"(access|auth|api|bearer|refresh|session|id|security)[-_]?token|"
    r"secret|passw(or)?d|pass[-_]?(phrase|code)|credentials?|authorization|cookie|signature|"
    r"connection[-_]?string)s?$|"
    r"(?<!pad.)(?<!bos.)(?<!eos.)(?<!sep.)(?<!cls.)(?<!unk.)(?<!mask.)(?<!stop.)(?<!start.)"
    r"(?<!end.)token$|"
    r"(^|[-_])(jwt|pass|pat|pwd?|sas)$",
    re.I,
)
_SPECIAL_TOKEN = re.compile(r"<.*>|\[.*\]", re.S)
#: How the names of other secrets end in headers and in the query of an address.
_SECRET_PARAMETER = re.compile(r"(^|[-_])(auth|code|key|sig)$", re.I)
_LEAST_KEY = 20
"""The fewest characters of a key in a path: `sk-learn-models` is none."""
_SECRET_FILE = re.compile("-----BEGIN [A-Z ]*PRIVATE KEY-----")
#: A word of letters in both cases and digits is no English.
_SECRET_WORD = re.compile(r"(?=\w*[a-z])(?=\w*[A-Z])(?=\w*\d)[A-Za-z0-9]{12,}")
_PARAMETERS = ("default_headers", "default_query", "headers", "extra_headers", "extra_query")
_HINT = "a secret does not belong in a file: write {env: NAME}, the NAME of a variable with it"


def variable_of(option: Any) -> str | None:
    """Return the variable that an option names as `{env: NAME}`; None for any other option."""
    named = option.get("env") if isinstance(option, Mapping) and len(option) == 1 else None
    return named if isinstance(named, str) else None


def variables_in(options: Any) -> Iterator[str]:
    """Yield the variables that nested options name as `{env: NAME}`."""
    if variable := variable_of(options):
        yield variable
    elif isinstance(options, Mapping | list):
        for option in options.values() if isinstance(options, Mapping) else options:
            yield from variables_in(option)


def from_environment(options: Any) -> Any:
    """Return nested options with the values of the variables that they name."""
    if variable := variable_of(options):
        return os.environ.get(variable, "")
    if isinstance(options, Mapping):
        return {name: from_environment(option) for name, option in options.items()}
    if isinstance(options, list):
        return [from_environment(option) for option in options]
    return options


def secret_in(options: Any, name: str = "", place: str = "", parameter: bool = False) -> str:
    """Name the one of nested options that looks like a literal secret; "" for none.

    The value is not repeated.

    Args:
        options: the options, or one of them.
        name: its own name.
        place: the names above it and its own, with dots between.
        parameter: whether it is a header, or a part of the query of an address.
    """
    if (variable := variable_of(options)) is not None:
        if re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable):
            return ""
        return f"{place}: env is the NAME of an environment variable in capitals, never a secret"
    if isinstance(options, Mapping | list):
        items = options.items() if isinstance(options, Mapping) else ((name, o) for o in options)
        within = parameter or name in _PARAMETERS
        found = (
            secret_in(option, str(inner), f"{place}.{inner}".lstrip("."), within)
            for inner, option in items
        )
        return next(filter(None, found), "")
    if not isinstance(options, str) or not options:
        return ""
    named = _SECRET_NAME.search(name) and not _SPECIAL_TOKEN.fullmatch(options)
    looks = bool(named or any(kind.search(options) for kind in (_KEY, _PASSWORD, _SECRET_FILE)))
    if parameter and not looks:
        words = re.split(r"[-_. ]", options)
        looks = bool(_SECRET_PARAMETER.search(name)) or any(map(_SECRET_WORD.fullmatch, words))
    return f"{place}: {_HINT}" if looks else ""


def secret_in_address(url: str) -> str:
    """Return a complaint about a secret in an address, with its proper place; "" for none."""
    parts = urlsplit(url)
    words = re.split(r"[/?&=#;,]", unquote(f"{parts.path}/{parts.fragment}"))
    if not (
        "@" in parts.netloc
        or secret_in({"default_query": dict(parse_qsl(parts.query))})
        or any(len(word) >= _LEAST_KEY and _KEY.fullmatch(word) for word in words)
    ):
        return ""
    return (
        "a secret does not belong in an address: use api_key_env, or options: {default_headers: "
        "{Authorization: {env: NAME}}} or {default_query: {key: {env: NAME}}}, with the NAME of an "
        "environment variable that holds it"
    )


def scrub(text: str, *secrets: str) -> str:
    """Remove known secrets, and everything that looks like a key, from a text."""
    text = _PASSWORD.sub(r"\g<begin>***@", hide(text, *secrets))
    return _PLACE.sub(r"\g<begin>***", _KEY.sub(r"\g<begin>***", text))


def beginning(text: str, most: int, *secrets: str) -> str:
    """Return the first characters of a text without secrets; it may end with half of one.

    Hidden secrets are short: the end of a text that is full of them would be among the first.
    """
    whole, cut = scrub(text, *secrets), scrub(text[:most], *secrets)
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(whole, cut, strict=False))
    return "".join(character for character, _ in pairs)[:most]


def hide_within(value: Any, *secrets: str) -> Any:
    """Remove known secrets from every text in nested lists and dicts."""
    if isinstance(value, str):
        return hide(value, *secrets)
    if isinstance(value, list):
        return [hide_within(item, *secrets) for item in value]
    if isinstance(value, dict):
        return {
            hide(str(key), *secrets): hide_within(item, *secrets) for key, item in value.items()
        }
    return value


def hide(text: str, *secrets: str) -> str:
    """Remove known secrets from a text; anything shorter than 6 characters is not one."""
    for form in _forms(secrets):
        text = text.replace(form, "***")
    return text


@lru_cache(maxsize=256)
def _forms(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Return how secrets and their parts may be written: as they are, in an address, in JSON."""
    forms: set[str] = set()
    for part in {part for secret in secrets for part in _parts(secret.strip())}:
        forms |= {part, quote(part, safe=""), quote_plus(part)}
        forms |= {json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]}
    return tuple(sorted((f for f in forms if len(f) >= _SHORTEST), key=len, reverse=True))


def _parts(secret: str) -> Iterator[str]:
    """Yield a secret, and what of it a server may tell alone.

    That is a password in an address, what follows the scheme of a header (`Bearer TOKEN`), and the
    password that the scheme Basic encodes.
    """
    yield secret
    users = [urlsplit(secret).netloc.rpartition("@")[0]] if "://" in secret else []
    scheme, _, given = secret.partition(" ")
    if given := given.strip():
        yield given
        if scheme.lower() == "basic":
            with suppress(ValueError):  # it is no base64, or no text
                users.append(b64decode(given).decode())
    for user in users:
        yield from (user, user.partition(":")[2])


class _Discretion(logging.Filter):
    """Removes secrets from the logs of endpoints' clients, such as an address with its query."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: frozenset[str] = frozenset()

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; none is left out."""
        record.msg, record.args = hide(record.getMessage(), *self.secrets), ()
        return True


_DISCRETION = _Discretion()
#: Loggers of addresses and headers. Newer releases of openai use `httpx2`.
_TALKATIVE = (
    "openai._base_client",
    *(f"httpx{version}" for version in ("", "2")),
    *(
        f"httpcore{version}.{part}"
        for version in ("", "2")
        for part in ("connection", "http11", "http2", "proxy")
    ),
)


def keep_out_of_logs(*secrets: str) -> None:
    """Let no client of an endpoint log these secrets, at any level."""
    _DISCRETION.secrets |= {secret for secret in secrets if secret}
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_DISCRETION)


def of_its_kind(error: Exception, message: str) -> Exception:
    """Return an exception of the same class, or at least of its name, with this message."""
    kind = type(error)
    try:
        made: Exception = kind.__new__(kind, message)
        if str(made) == message:
            return made
    except Exception:  # it needs more than a message, as pydantic's ValidationError does
        logging.getLogger(__name__).debug("%s cannot be made of a message", kind.__name__)
    base = ValueError if isinstance(error, ValueError) else Exception
    made = type(kind.__name__, (base,), {})(message)
    return made
