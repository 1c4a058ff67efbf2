"""A test that needs an optional dependency is skipped where that is missing, and says so."""

from importlib.util import find_spec

import pytest

#: extra of pyproject.toml -> what tests import of it
PACKAGES = {
    "agents": ("langchain",),
    "local": ("torch", "transformers"),
    "remote": ("transformers",),
    "train": ("torch", "transformers", "trl", "datasets", "accelerate", "peft", "matplotlib"),
    "eval": ("numpy", "sklearn"),
    "langchain": ("langchain",),
    "otel": ("opentelemetry.sdk",),
    "serve": ("fastapi", "uvicorn", "prometheus_client"),
    "mcp": ("langchain_mcp_adapters",),
}


def missing(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed."""
    return [package for package in PACKAGES[extra] if find_spec(package) is None]


def needs(extra: str) -> None:
    """Skip the test, or all of the file above whose imports this stands, without that extra."""
    __tracebackhide__ = True  # pytest names the line that calls this
    if lacks := missing(extra):
        reason = f"needs the extra {extra!r}: {', '.join(lacks)} not installed"
        pytest.skip(reason, allow_module_level=True)
