"""A batch as a client of the gateway runs it: rows of a file there, decisions of a file here."""
