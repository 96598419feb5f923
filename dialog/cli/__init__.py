"""The command line: a demo call, dialling a gateway, text chat, a check-up, a scaffold."""
