"""Text messages, with and without a call."""
