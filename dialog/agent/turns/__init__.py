"""agent/turns."""
