"""A test kit for agents: a simulated caller and emulators of the providers."""
