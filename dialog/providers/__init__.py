"""Providers by name: which there are, their classes, and how to make one from settings."""
