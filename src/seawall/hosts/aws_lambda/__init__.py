"""AWS Lambda host: a runtime on one asyncio event loop, and its events as HTTP requests."""
