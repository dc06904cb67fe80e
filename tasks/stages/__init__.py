"""The agents' side: one member answers the items of one stage."""
