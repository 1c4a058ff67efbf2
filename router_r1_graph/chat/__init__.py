"""The router as a chat model: LangChain's interface, tools and answers in an asked form."""
