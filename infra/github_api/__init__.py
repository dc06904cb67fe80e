"""A stand-in for GitHub's REST API, to try webhooks with: `python -m infra.github_api`."""
