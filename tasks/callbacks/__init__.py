"""Telling others of the end of a deliberation: whom, what, and what became of it; kept on the record."""
