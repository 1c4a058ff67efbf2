"""Keys, taken out of texts: those that are known, and whatever looks like one."""

from __future__ import annotations

import re
from typing import Any

#: How the keys of the big providers begin. After a short beginning, only letters and digits count:
#: `hf_hub_download` and `pplx-7b-online` are no keys.
_KEY = re.compile(
    r"\b(?P<begin>"
    r"sk-(?=[\w.+/=-]{6})|"  # OpenAI, Anthropic, OpenRouter, DeepSeek
    r"AIza(?=[\w-]{6})|AQ\.(?=[\w-]{20})|ya29\.(?=[\w-]{6})|"  # Google
    r"nvapi-(?=[\w-]{16})|lsv2_(?=\w{16})|github_pat_(?=\w{16})|"  # NVIDIA, LangSmith, GitHub
    r"(?:gsk_|xai-|hf_|r8_|pplx-|fw_|csk-|tgp_v1_|ABSK|AKIA|ASIA|gh[pousr]_|glpat-|tvly-|dapi)"
    r"(?=[A-Za-z0-9]{16})"
    r")[\w.+/=-]+"
)
#: Where a key stands whatever it looks like: headers, parameters of an address, a user's password.
_PLACE = re.compile(
    r"(?P<begin>\bBearer\s+|(?i:"
    r"\bauthorization['\"]?\s*[:=]\s*['\"]?(?:basic\s+|token\s+)?(?!bearer)|"
    r"\b(?:api[-_]?key|access[-_]?token|client[-_]?secret|subscription-key)['\"]?\s*[:=]\s*['\"]?|"
    r"[?&]key=))(?!\*)[\w.+/=~-]{6,}"
)
# A scheme is short: without a bound, a long word is read again from each of its letters.
_PASSWORD = re.compile(r"(?P<begin>\b[a-z][a-z0-9+.-]{0,30}://)[^\s/@'\"]+@")


def scrub(text: str, secret: str = "") -> str:
    """Take a known secret, and whatever looks like a key, out of a text."""
    text = _PASSWORD.sub(r"\g<begin>***@", hide(text, secret))
    return _PLACE.sub(r"\g<begin>***", _KEY.sub(r"\g<begin>***", text))


def hide_within(value: Any, secret: str) -> Any:
    """Take a known secret out of every text in nested lists and dicts."""
    if isinstance(value, str):
        return hide(value, secret)
    if isinstance(value, list):
        return [hide_within(item, secret) for item in value]
    if isinstance(value, dict):
        return {hide(str(key), secret): hide_within(item, secret) for key, item in value.items()}
    return value


def hide(text: str, secret: str) -> str:
    """Take a known secret out of a text; anything shorter than 6 characters is not one."""
    secret = secret.strip()
    return text.replace(secret, "***") if len(secret) >= 6 else text
