"""The call log: what becomes of the events of calls in a database."""
