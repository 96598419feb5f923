"""Alembic's migrations of the call log."""
