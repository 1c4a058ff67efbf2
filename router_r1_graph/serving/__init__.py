"""The router behind OpenAI's API: its schema, and the application."""
