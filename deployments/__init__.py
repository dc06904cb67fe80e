"""How it runs: command line, local stack, benchmark."""
