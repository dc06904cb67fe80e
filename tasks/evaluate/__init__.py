"""The steps of an evaluation: its questions, its checks, its report."""
