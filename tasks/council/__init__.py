"""The domain: data and rules, without I/O."""
