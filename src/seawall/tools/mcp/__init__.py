"""Tools of MCP servers: a client of the Model Context Protocol.

https://modelcontextprotocol.io/specification; docs/decisions/017-mcp-client.md says why it is ours.
"""
