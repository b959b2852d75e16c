"""Chat templates, replies and tool calls."""
