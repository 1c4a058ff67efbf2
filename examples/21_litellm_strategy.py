"""A LiteLLM router whose deployments a controller chooses: a custom routing strategy.

LiteLLM asks and retries; the controller chooses the deployment. It needs `litellm`, which takes
only older versions of some packages: install it in an environment of its own. Here the endpoints
are stand-ins and the controller is `random`: use your own, and a fitted one (`auto:DIR`).

Prints:
    Who wrote Hamlet? -> qwen2.5-7b-instruct: William Shakespeare
    What is the capital of Britain? -> gpt-4.1: London
"""

import os
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import convert_to_messages
from played import endpoints

from router_r1_graph import CandidatePool, Controller, parse_controller, route_only

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else LiteLLM fetches its prices
from litellm import Router
from litellm.types.router import CustomRoutingStrategyBase

MODELS = ("qwen2.5-7b-instruct", "gpt-4.1")


@dataclass
class Routed(CustomRoutingStrategyBase):
    """Sends each request to the deployment of the candidate that a controller would ask first."""

    pool: CandidatePool
    controller: Controller
    deployments: dict[str, Any]

    def get_available_deployment(self, model: str, messages: Any = None, **_: Any) -> Any:
        """Return the deployment; no candidate is asked for that."""
        said = convert_to_messages(messages)
        (call, *_) = route_only(self.pool, self.controller, messages=said).calls
        return self.deployments[call.candidate]

    async def async_get_available_deployment(self, model: str, messages: Any, **_: Any) -> Any:
        """Return the deployment; nothing here has to be waited for."""
        return self.get_available_deployment(model, messages)


pool = CandidatePool.model_validate({"candidates": [{"name": name} for name in MODELS]})
with endpoints() as urls:
    deployments = {}
    for name, url in zip(MODELS, urls, strict=True):
        to = {"model": f"openai/{name}", "api_base": url, "api_key": "none"}
        known = {"model_name": "routed", "model_info": {"id": name}}
        deployments[name] = {**known, "litellm_params": to}
    router = Router(model_list=list(deployments.values()))
    router.register_plugin(Routed(pool, parse_controller("random:9", pool), deployments))
    for asked in ("Who wrote Hamlet?", "What is the capital of Britain?"):
        said = router.completion(model="routed", messages=[{"role": "user", "content": asked}])
        print(f"{asked} -> {said.model}: {said.choices[0].message.content}")
