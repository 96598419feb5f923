"""MCP servers, whose tools an agent's model may call."""
