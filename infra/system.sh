# Sourced by the set-up scripts: Debian's packages, as root or by sudo, and never without saying so first.

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
may_install() { [ -z "${CONCLAVE_NO_APT:-}" ] && command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; }
by_hand() { echo "Nothing is installed by itself here$1. By hand: apt-get install ${*:2}" >&2; }

# install WHY PACKAGE...: says which of Debian's packages it installs, what for and as whom, and does so. Where
# CONCLAVE_NO_APT is set, or there is no apt-get, it says what to install by hand and fails.
install() {
  local why=$1 who="as root"
  shift
  if [ -n "${CONCLAVE_NO_APT:-}" ]; then by_hand " (CONCLAVE_NO_APT is set), and it is needed $why" "$@"; return 1; fi
  command -v apt-get >/dev/null || { by_hand " (there is no apt-get), and it is needed $why" "$@"; return 1; }
  [ "$(id -u)" = 0 ] || who="by sudo"
  echo "installing from Debian, $who: $*, $why (CONCLAVE_NO_APT=1 forbids it)" >&2
  as_root apt-get update -qq &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
