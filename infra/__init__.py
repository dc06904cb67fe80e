"""What it runs on and is rehearsed with: simulator, Prefect's server, set-up; imports nothing of ours."""
