#!/usr/bin/env bash
# What the tests need beside Python packages: PostgreSQL, from Debian, for the test of Prefect on it.
# Where it may not be installed that one test is skipped and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
. infra/system.sh

if command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null; then exit 0; fi
may_install || { echo "PostgreSQL is not installed here: the test of Prefect on it will be skipped" >&2; exit 0; }
echo "installing PostgreSQL for a test" >&2
install postgresql || echo "PostgreSQL cannot be installed: the test of Prefect on it will be skipped" >&2
