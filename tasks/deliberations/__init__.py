"""What every door calls: plan, submit, read and watch a deliberation, and whose it is; cancelling is in `collect`."""
