"""A gateway as a service: its HTTP server, its probes, and how it comes down without cutting a call."""
