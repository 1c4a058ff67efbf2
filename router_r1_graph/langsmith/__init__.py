"""LangSmith: what a run looks like there (`runs`), and runs back into traces (`traces`)."""
