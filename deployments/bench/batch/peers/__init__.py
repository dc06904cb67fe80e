"""Who is measured beside us: each a program of its own, so that its processor time and memory are its own."""
