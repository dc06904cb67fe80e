"""The real vLLM on a CPU: an environment of its own, a tiny model made on the spot, and how they are served."""
