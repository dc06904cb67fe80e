"""Who may ask for what: tokens of the gateway, their rights, and what was used by them; kept on the record."""
