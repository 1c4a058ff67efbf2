"""The usage of a reply: token counts by price, and the cost that a provider reports.

Providers count differently. A part that is reported beside its whole (reasoning tokens beside the
completion's, cached tokens beside the prompt's) belongs to it, as the total shows: unless it is
larger than its whole by more than any model reads or writes. A count that is missing, null, 0 or
impossible is estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata

from ..outside import count, number, usd, writable

MOST_BESIDE = 10**6
"""The most tokens of a part that are believed to be reported beside a whole that is smaller."""
NO_TOKENS = "no_tokens"
"""In a message's response metadata: no model wrote it, so there are no tokens to estimate."""
_USD_PER_TICK = 1e-10
"""xAI's unit. Source: https://docs.x.ai/developers/cost-tracking"""
_TICKS = "cost_in_usd_ticks"

COSTS = ("cost", "total_cost", "estimated_cost", "cost_usd", "total_cost_usd", "cost_usd_total")
"""The names of a reported cost: most gateways', others', DeepInfra's; the last is LLM Gateway's."""
_WHOLE = ("total_cost", "total")
"""The names of the whole in a cost that has parts."""
#: The names of the two counts, without case and underscores.
_INPUT = ("prompttokens", "inputtokens")
_OUTPUT = ("completiontokens", "outputtokens")
#: OpenRouter's names of what the provider behind it takes: all of it, and its two parts, which are
#: called otherwise in the Responses API.
_UPSTREAM = (
    "upstream_inference_cost",
    "upstream_inference_prompt_cost",
    "upstream_inference_completions_cost",
    "upstream_inference_input_cost",
    "upstream_inference_output_cost",
)

# Where providers put what OpenAI has in other places, or not at all: DeepSeek, Moonshot, Anthropic
# behind LiteLLM, OpenRouter.
_CACHE_READ = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("prompt_cache_hit_tokens",),
    ("cached_tokens",),
    ("cache_read_input_tokens",),
)
_CACHE_WRITTEN = (
    ("prompt_tokens_details", "cache_write_tokens"),
    ("prompt_tokens_details", "cache_creation_tokens"),
    ("prompt_tokens_details", "cache_creation_input_tokens"),
    ("cache_creation_input_tokens",),
)
_REASONING = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("reasoning_tokens",),
)


@dataclass(frozen=True)
class Usage:
    """The tokens of one call.

    `input_tokens` and `output_tokens` are wholes. `cached_input_tokens` (read out of the provider's
    prompt cache) and `cache_write_tokens` are parts of the former, `reasoning_tokens` of the
    latter. `estimated` names the wholes that were not reported, and `impossible` the reported
    values that cannot be true.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()


def usage_of(message: AIMessage, messages: Sequence[AnyMessage] = ()) -> Usage:
    """Return the tokens of a reply, as far as possible those that the provider counted.

    Args:
        message: the reply.
        messages: the prompt, for estimates.
    """
    if message.response_metadata.get(NO_TOKENS):
        return Usage()
    told: Mapping[str, Any] = message.usage_metadata or {}
    into: Mapping[str, Any] = told.get("input_token_details") or {}
    out_of: Mapping[str, Any] = told.get("output_token_details") or {}
    # LangChain has the service tier before some names, and Anthropic's writes by their lifetime.
    read = _sum(into[name] for name in into if name.endswith("cache_read"))
    written = _sum(
        into[name] for name in into if name.endswith("cache_creation") or "ephemeral" in name
    )
    reasoning = _sum(out_of[name] for name in out_of if name.endswith("reasoning"))
    input_, output, total = (
        count(told.get(f"{part}_tokens")) or 0 for part in ("input", "output", "total")
    )

    doubts = list(_impossible(message))
    reasoning = _part(reasoning, output, "reasoning", doubts, MOST_BESIDE)
    cache = _part(read + written, input_, "cached", doubts, MOST_BESIDE)
    if total - (parts := input_ + output + cache + reasoning) > MOST_BESIDE:
        doubts.append(f"{total} tokens in total, {parts} in its parts")
        total = 0
    beside = total - input_ - output
    apart = beside in (cache, cache + reasoning) and beside != reasoning
    if cache and input_ and (cache > input_ or apart):
        input_, beside = input_ + cache, beside - cache
    if not input_ and total > output > 0:
        input_ = total - output
    elif input_ and beside > 0:
        output += beside
    elif reasoning > output:
        output += reasoning

    estimated = []
    if not input_:
        estimated.append("input")
        input_ = max(cache, sum(estimate_tokens(str(m.text)) for m in messages))
    if not output and (text := _written(message)):
        estimated.append("output")
        output = max(estimate_tokens(text), total - input_)
    reasoning = _part(reasoning, output, "reasoning", doubts)
    if not _part(cache, input_, "cached", doubts):
        read = written = 0
    return Usage(input_, output, reasoning, read, written, tuple(estimated), tuple(doubts))


def _part(tokens: int, whole: int, what: str, doubts: list[str], most: int = 0) -> int:
    """Return the tokens of a part; 0, and a doubt more, if they are too many for their whole.

    Args:
        tokens: what is reported.
        whole: what it is a part of.
        what: its name.
        doubts: where a doubt is added.
        most: the most that may be reported beside a whole that is smaller.
    """
    if tokens <= max(whole, most):
        return tokens
    doubts.append(f"{tokens} {what} tokens of {whole}")
    return 0


def usage_metadata(report: Mapping[str, Any]) -> UsageMetadata | None:
    """Return the counts of an OpenAI-compatible `usage` block; None if it has none.

    A count of null, or an impossible one, becomes 0: `usage_of` estimates it.
    """
    plain = {str(name).lower().replace("_", ""): value for name, value in report.items()}
    input_, output, total = (
        next((count(plain[name]) or 0 for name in names if plain.get(name) is not None), 0)
        for names in (_INPUT, _OUTPUT, ("totaltokens",))
    )
    if not (input_ or output or total):
        return None
    read, written = _first(report, _CACHE_READ), _first(report, _CACHE_WRITTEN)
    reasoning = _first(report, _REASONING)
    into = InputTokenDetails()
    if read is not None:
        into["cache_read"] = read
    if written is not None:
        into["cache_creation"] = written
    return UsageMetadata(
        input_tokens=input_,
        output_tokens=output,
        total_tokens=max(total, input_ + output),
        input_token_details=into,
        output_token_details=(
            OutputTokenDetails() if reasoning is None else OutputTokenDetails(reasoning=reasoning)
        ),
    )


def reported_usd(message: AIMessage) -> float | None:
    """Return the cost that the provider reports; None if it reports no valid price.

    If the user has a key at the provider behind a gateway ("BYOK"), the gateway's `cost` is only
    its fee, and the provider's price is in another field.
    """
    metadata = message.response_metadata
    for report in (metadata.get("token_usage"), metadata):
        if isinstance(report, Mapping) and (usd := _reported(report)) is not None:
            return usd
    return None


def is_cached(message: AIMessage) -> bool:
    """Return whether a reply came out of LangChain's cache, which says that it cost nothing."""
    told: Mapping[str, Any] = message.usage_metadata or {}
    return told.get("total_cost") == 0


def _reported(report: Mapping[str, Any]) -> float | None:
    costs = (report.get(name) for name in COSTS)
    whole = (
        next((cost[name] for name in _WHOLE if name in cost), None)
        if isinstance(cost, Mapping)
        else cost
        for cost in costs
    )
    paid = next((read for cost in whole if (read := usd(cost)) is not None), None)
    if paid is None:
        paid = _usd_of_ticks(report.get(_TICKS))
    own_key = report.get("is_byok")
    if own_key or (own_key is None and not paid):
        details = report.get("cost_details")
        upstream = [at(details, (name,)) for name in _UPSTREAM]
        for part in upstream[:1] if upstream[0] is not None else upstream[1:]:
            if part is not None:
                if (read := usd(part)) is None:
                    return None  # the fee alone is not the price
                paid = (paid or 0.0) + read
    return paid


def _usd_of_ticks(value: object) -> float | None:
    ticks = number(value)
    return None if ticks is None else usd(ticks * _USD_PER_TICK)


def _impossible(message: AIMessage) -> Iterator[str]:
    """Yield the names and values of reports that are no possible token count or price."""
    metadata = message.response_metadata
    beside = {name: metadata.get(name) for name in (*COSTS, _TICKS, "cost_details")}
    reports = [(metadata.get("token_usage"), ""), (message.usage_metadata, ""), (beside, "")]
    for report, place in reports:  # which grows
        for name, value in report.items() if isinstance(report, Mapping) else ():
            where = f"{place}{name}"
            if isinstance(value, Mapping):
                reports.append((value, f"{where}."))
            elif value is not None and (read := _gate(str(name), place)) and read(value) is None:
                yield f"{where} {value!r:.40}"


def _gate(name: str, place: str) -> Callable[[object], float | None] | None:
    """Return what reads a value of a report; None = nothing does.

    Args:
        name: its name.
        place: the names above it, each with a dot behind it.
    """
    if name in (*COSTS, *_UPSTREAM) or (name in _WHOLE and place[:-1] in COSTS):
        return usd
    if name == _TICKS:
        return _usd_of_ticks
    plain = name.lower().replace("_", "")
    counted = plain.endswith(("tokens", "cacheread", "cachecreation", "reasoning"))
    return count if counted or "ephemeral" in plain else None


def at(report: Any, path: Iterable[str]) -> Any:
    """Return the value in nested objects under these names; None = there is none."""
    for name in path:
        report = report.get(name) if isinstance(report, Mapping) else None
    return report


def _first(report: Mapping[str, Any], paths: Iterable[Iterable[str]]) -> int | None:
    found = (value for path in paths if (value := at(report, path)) is not None)
    first = next(found, None)
    return None if first is None else count(first) or 0


def _sum(tokens: Iterable[Any]) -> int:
    return sum(count(one) or 0 for one in tokens)


def _written(message: AIMessage) -> str:
    """Return all that the model wrote, thoughts and calls included."""
    thoughts = message.additional_kwargs.get("reasoning_content") or ""
    calls = "".join(str(call["args"]) for call in message.tool_calls + message.invalid_tool_calls)
    return f"{thoughts}{writable(str(message.text))}{calls}"


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a text has: 4 bytes each."""
    return -(-len(text.encode(errors="replace")) // 4)
