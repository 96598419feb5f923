"""Webhooks: what happens in calls, told to other systems."""
