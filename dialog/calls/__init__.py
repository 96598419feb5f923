"""What happened in a call: events, times, the report."""
