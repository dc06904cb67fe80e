"""What every door calls: plan, submit, read and end a deliberation, and whose it is."""
