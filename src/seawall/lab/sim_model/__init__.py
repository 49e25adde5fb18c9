"""The simulated model: a server that speaks OpenAI's wire protocol."""
