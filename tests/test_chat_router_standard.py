"""The unit tests that LangChain asks every chat model to pass."""

import pytest

from router_r1_graph import ChatRouterR1

ChatModelUnitTests = pytest.importorskip("langchain_tests.unit_tests").ChatModelUnitTests


class TestChatRouterR1(ChatModelUnitTests):
    @property
    def chat_model_class(self):
        return ChatRouterR1

    @property
    def standard_chat_model_params(self):
        # timeout and max_retries belong to each candidate; the router has deadline_seconds.
        return {"temperature": 0, "max_tokens": 100, "stop": []}

    @property
    def chat_model_params(self):
        return {"pool": "embedded", "controller": "keyword"}
