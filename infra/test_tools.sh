#!/usr/bin/env bash
# What the tests need beside Python packages: PostgreSQL, from Debian, for the test of Prefect on it.
# Where it may not be installed that one test is skipped and says so.
set -euo pipefail

if command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null; then exit 0; fi
if [ "$(id -u)" = 0 ]; then as_root() { "$@"; }
elif sudo -n true 2>/dev/null; then as_root() { sudo "$@"; }
else echo "PostgreSQL is not installed here: the test of Prefect on it will be skipped" >&2; exit 0; fi

echo "installing PostgreSQL for a test" >&2
if ! { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends postgresql; } >/dev/null; then
  echo "PostgreSQL cannot be installed: the test of Prefect on it will be skipped" >&2
fi
