"""The agent: what the user of the framework writes, and what runs it on a call."""
