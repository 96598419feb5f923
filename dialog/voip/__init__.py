"""Calls: the agent's side, the carrier's side, and what joins them."""
