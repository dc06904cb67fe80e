"""How far an item is, when a stage ends, and what comes out."""
