"""Fixtures of the bridge."""

from __future__ import annotations

import bridges
import pytest


@pytest.fixture(params=["sockets", "nats"])
def over_both(request, monkeypatch):
    """Run the test over sockets, and over NATS."""
    monkeypatch.setattr(bridges, "medium", request.param)
