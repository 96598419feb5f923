"""Dialog: phone and browser conversations between people and LLM agents."""

__version__ = "0.1.0"
