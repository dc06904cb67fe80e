"""The gateway's figures: requests stored a second, results read, listeners at once."""
