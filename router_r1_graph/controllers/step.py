"""One step of an agent, as a controller sees it: its history, and each candidate's prompt cache.

Providers keep the prefix of a prompt for a while, and read it at a lower price. Only the model that
has read a prefix has it: another model reads the whole conversation at the full price.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

from ..candidates import Candidate
from ..protocol import cut

TYPICAL_OUTPUT_TOKENS = 200
"""The output of a step in the estimate of its cost: a call of a tool, or a short answer."""


@dataclass(frozen=True)
class AgentStep:
    """One model call of an agent.

    Attributes:
        number: how many steps there were since the question.
        messages: those since the question: turns of models, and results of tools.
        input_tokens: an estimate of the whole prompt.
        last: the candidate that answered the step before; "" if there was none.
        warm_tokens: how many tokens of the prompt are in each candidate's cache, by name; a
            candidate that is missing has none.
    """

    number: int = 0
    messages: tuple[AnyMessage, ...] = ()
    input_tokens: int = 0
    last: str = ""
    warm_tokens: Mapping[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a tool reports an error of the step before."""
        return any(is_error(message) for message in last_results(self.messages))

    def cost_usd(self, candidate: Candidate) -> float:
        """Return an estimate of the step's cost with a candidate, its cache considered."""
        return candidate.cached_usd(
            self.input_tokens, TYPICAL_OUTPUT_TOKENS, self.warm_tokens.get(candidate.name, 0)
        )

    def cache_loss_usd(self, candidate: Candidate) -> float:
        """Return how much more the candidate costs because its cache is colder than any other's."""
        warmest = max(self.warm_tokens.values(), default=0)
        whole = candidate.cached_usd(self.input_tokens, 0, warmest)
        warm = self.warm_tokens.get(candidate.name, 0)
        return max(0.0, candidate.cached_usd(self.input_tokens, 0, warm) - whole)


def last_results(messages: Sequence[AnyMessage]) -> tuple[ToolMessage, ...]:
    """Return the results of tools at the end of a conversation, in order."""
    results: list[ToolMessage] = []
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        results.insert(0, message)
    return tuple(results)


def is_error(result: ToolMessage) -> bool:
    """Return whether a tool reports an error: by its status, or by how its text begins."""
    return result.status == "error" or str(result.text).lstrip().casefold().startswith("error")


def step_text(
    question: str, messages: Iterable[AnyMessage], max_tokens: int, last: str = ""
) -> str:
    """Return the question of a step: the user's, then the calls before it and their results.

    A controller reads it as the question. So a controller that knows nothing of agents, or was
    fitted on texts, decides by the step.

    Args:
        question: the user's question.
        messages: those since the question.
        max_tokens: the most tokens of each result.
        last: the candidate that made the calls.

    Example:
        >>> call = {"name": "run_tests", "args": {"path": "tests"}, "id": "1"}
        >>> told = [AIMessage("", tool_calls=[call]), ToolMessage("2 failed", tool_call_id="1")]
        >>> print(step_text("Fix the bug.", told, 100, "Ada"))
        Fix the bug.
        Ada: run_tests {"path": "tests"}: 2 failed
    """
    messages = list(messages)
    results = last_results(messages)
    turn = next((m for m in reversed(messages) if isinstance(m, AIMessage)), None)
    calls = {call["id"]: call for call in turn.tool_calls} if turn else {}
    lines = [question]
    for result in results:
        call = calls.get(result.tool_call_id)
        asked = f"{call['name']} {json.dumps(call['args'], default=str)}" if call else result.name
        failed = "error: " if result.status == "error" else ""
        who = f"{last}: " if last else ""
        lines.append(f"{who}{asked or 'tool'}: {failed}{cut(str(result.text), max_tokens)}")
    return "\n".join(lines)
