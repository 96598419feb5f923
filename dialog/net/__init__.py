"""Provider sockets and what they share."""
