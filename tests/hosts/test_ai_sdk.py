"""User interfaces made with the AI SDK, by its own client: `ai`, unmodified."""
