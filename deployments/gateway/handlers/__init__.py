"""What each route does: it reads the request, calls a use case, and writes the answer."""
