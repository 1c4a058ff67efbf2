"""The router behind OpenAI's APIs: requests and responses, and the application."""

from .app import create_app

__all__ = ["create_app"]
