"""LangSmith: the look of a run there (`runs`), and runs read back as traces (`traces`)."""
