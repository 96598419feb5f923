"""What an agent is in one value, and which agent a call gets: configuration, session resolver."""
