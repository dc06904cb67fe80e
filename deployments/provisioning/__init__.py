"""What an installation needs in Prefect: blocks, councils, deployments."""
