"""What a batch writes: finished rows in parts that outlive a kill, a manifest, at the end one file, and a report."""
