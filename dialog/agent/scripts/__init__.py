"""Calls as scripts: one thing after the other, in code."""
