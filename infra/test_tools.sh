#!/usr/bin/env bash
# What tests need beside Python packages, from Debian: test_tools.sh postgresql (Prefect on it), or chromium (a page in
# a browser). Where it may not be installed those tests are skipped and say so.
set -euo pipefail
cd "$(dirname "$0")/.."
. infra/system.sh

case "$1" in
  postgresql)
    what="the test of Prefect on PostgreSQL" packages=(postgresql)
    have() { command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null; } ;;
  chromium)
    what="the tests from a page in a browser" packages=(chromium chromium-driver)
    have() { command -v chromium >/dev/null && command -v chromedriver >/dev/null; } ;;
  *) echo "test_tools.sh postgresql|chromium" >&2; exit 2 ;;
esac

if have; then exit 0; fi
may_install || { by_hand ", and $1 is not there: it is needed for $what, which will be skipped" "${packages[@]}"; exit 0; }
install "for $what" "${packages[@]}" || echo "$1 cannot be installed: $what will be skipped" >&2
