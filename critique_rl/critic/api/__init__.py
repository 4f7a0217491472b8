"""The client of an OpenAI-compatible server; the only place with asyncio and SQLite."""
