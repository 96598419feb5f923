"""The console: a page for people who look after calls."""
