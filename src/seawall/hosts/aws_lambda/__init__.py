"""Lambda: the Runtime API as one asyncio process speaks it, and its events as requests."""
