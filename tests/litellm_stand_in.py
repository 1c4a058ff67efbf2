"""What example 21 uses of LiteLLM 1.110: its router asks where a plugin says.

As there, the plugin is asked with the name of the group of models and the messages, and its answer
is one of the deployments as the router was given them.
"""

from __future__ import annotations

from typing import Any

from openai import OpenAI


class CustomRoutingStrategyBase:
    pass


class Router:
    def __init__(self, model_list: list[dict[str, Any]]) -> None:
        self.model_list = model_list
        self.plugin: Any = None

    def register_plugin(self, plugin: CustomRoutingStrategyBase) -> None:
        self.plugin = plugin

    def completion(self, model: str, messages: list[dict[str, Any]]) -> Any:
        chosen = self.plugin.get_available_deployment(
            model=model, messages=messages, specific_deployment=False, request_kwargs={}
        )
        assert chosen in self.model_list
        to = chosen["litellm_params"]
        provider, _, name = to["model"].partition("/")
        assert (chosen["model_name"], provider) == (model, "openai")
        with OpenAI(base_url=to["api_base"], api_key=to["api_key"]) as client:
            return client.chat.completions.create(model=name, messages=messages)  # type: ignore[arg-type]
