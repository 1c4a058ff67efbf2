"""The kinds of errors, and the words by which they are recognised."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

ErrorKind = Literal[
    "auth",  # 401, 402, 403: the key is missing, wrong, or has no access or credit
    "not_found",  # 404: no such model or address
    "bad_request",  # any other 4xx
    "rate_limited",  # 429
    "server_error",  # 5xx, 409, 424, 425, 498, 499
    "timeout",  # no answer in time
    "connection",  # refused, reset, or cut
    "malformed",  # the answer is not what the API promises
    "empty",  # no choices, or no text
    "declined",  # the model refused, or a content filter stopped it
    "no_record",  # a recorded candidate was never asked this
    "refused",  # a person did not approve of the call
    "circuit_open",  # it failed again and again, and is left alone for a while
    "cut",  # usable text that is not whole: its limit, or a content filter, ended it
    "missing_usage",  # usable text, but no counts or cost that can be: they are estimated
    "context_length",  # more tokens than the model or the controller can read
    "bug",  # the user's own code raised; the message says where
    "other",
]
"""Why a call failed, or what is doubtful about its reply (`cut`, `missing_usage`)."""
#: Errors that may go away by themselves, and are retried.
TRANSIENT: frozenset[ErrorKind] = frozenset(
    {"rate_limited", "server_error", "timeout", "connection"}
)

#: LangChain's shared exceptions, by name: earlier releases lack some.
OF_LANGCHAIN: Mapping[str, ErrorKind] = {
    "ContextOverflowError": "context_length",
    "ModelRefusalError": "declined",
    "ModelAuthenticationError": "auth",
    "ModelPermissionDeniedError": "auth",
    "ModelNotFoundError": "not_found",
    "ModelRateLimitError": "rate_limited",
    "ModelTimeoutError": "timeout",
    "ModelConnectionError": "connection",
    "ModelAPIError": "server_error",
    "ModelInvalidRequestError": "bad_request",
}
#: What the codes of providers have in common. A status of 429 or 400 may mean the first three.
NARROW: tuple[tuple[ErrorKind, str], ...] = (
    (
        "auth",
        r"insufficient_(user_)?(quota|credit|balance|fund)|exceeded_current_quota|out_of_credit"
        r"|arrear|billing_|access_terminated|(spending|usage)_limit|budget_?exceeded|no_?credentials",
    ),
    (
        "context_length",
        r"context_?(length|window)|prompt_too_long|request_too_large|string_above_max",
    ),
    (
        "declined",
        r"content_?(filter|policy)|responsible_?ai|moderation|guardrail|refusal"
        r"|data_inspection|blocked_?prompt|stop_?candidate",
    ),
    ("malformed", r"overlong_?reply"),
    ("not_found", r"model_?(not_?found|not_?exist|decommissioned)|redirected"),
    # What the model wrote was no call or no JSON, and the server could not hand it on.
    ("server_error", r"(tool_use|json_validate|output_parse)_failed|malformed_function_call"),
)
BROAD: tuple[tuple[ErrorKind, str], ...] = (
    *NARROW,
    (
        "rate_limited",
        r"rate_?limit|too_?many_?requests|throttl|resource_?exhausted|quota|slow_down",
    ),
    ("timeout", r"time_?out|timed_out|deadline_?exceeded"),
    (
        "auth",
        r"authenticat|authoriz|api_?key|permission|forbidden|access_?denied|payment",
    ),
    ("not_found", r"not_?found|does_not_exist"),
    ("server_error", r"overload|unavailable|internal|server|api_error|gateway|upstream|abort"),
    ("bad_request", r"invalid|unsupported|bad_?request|validation|unprocessable"),
)
#: Of an account that has nothing left to spend: each is the words of some provider, and the two in
#: Chinese are Zhipu's. They are bounded, so that the time grows linearly with the text.
_SPENT = (
    r"insufficient_(balance|credit|fund)|used_\w{0,40}(credit|allocation)|余额不足|欠费"
    r"|credits?_\w{0,40}(deplet|exhaust|used_up)|out_of_credit|no_(more|remaining)_credit"
    r"|spend(ing)?_(limit|cap)|(daily|weekly|monthly)_usage_limit"
)
#: What the words of a refused request have in common, where its status and its code say no more.
IN_WORDS: tuple[tuple[ErrorKind, str], ...] = (
    ("rate_limited", r"throttling|rate_exceeded|rate_limit_(is_)?(exceeded|reached)"),
    (
        "context_length",
        r"context_(length|window|size)|(prompt|input|request|messages?)_(is|are)?_?too_(long|large)"
        r"|max(imum)?_(context|number_of_tokens|(prompt|input)_length)|input_token_count"
        r"|tokens`?_\+_`?max|too_many_tokens|request_entity_too_large|range_of_input_length"
        r"|(prompt|input|request|messages?)_exceed(s|ed)?_(the_)?(model_token_limit|max(imum)?_length)"
        r"|inputs`?_must_have_less|超长",
    ),
    (
        "declined",
        r"content_(management_)?polic|usage_(polic|guideline)|flagged|requires_moderation"
        r"|(inappropriate|sensitive)_(content|word)|new_sensitive|exists_risk|敏感"
        r"|safety_(system|filter|reasons|check)|violat\w{0,40}_(polic|guideline)",
    ),
    (
        "auth",
        r"(incorrect|invalid|missing|wrong)_api_key|api_key_(is_)?(not_|in|missing|expired)"
        rf"|credit_balance|insufficient_quota|usage_limits|{_SPENT}",
    ),
)
#: Of a status of 429 that does not pass by itself.
NO_CREDIT: tuple[tuple[ErrorKind, str], ...] = (("auth", _SPENT),)
CONNECTION = (
    r"CutReply|Connect|TransportError|ProtocolError|ReadError|WriteError|NetworkError|ProxyError|SSLError|"
    r"Disconnected|URLError|PayloadError|IncompleteRead|ChunkedEncoding|ClosedResource|BrokenResource|gaierror"
)


def matching(words: str, table: tuple[tuple[ErrorKind, str], ...]) -> ErrorKind | None:
    """Return the first kind of a table that fits the words, with spaces as underscores."""
    words = re.sub(r"[ -]", "_", words.lower())
    return next((kind for kind, pattern in table if re.search(pattern, words)), None)
