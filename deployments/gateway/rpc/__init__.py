"""The door over gRPC: its server, its calls, and what they answer instead of an error of HTTP."""
