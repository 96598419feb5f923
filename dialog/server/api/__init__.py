"""The REST API of a service, without any HTTP server: operations, who may use them, their description."""
