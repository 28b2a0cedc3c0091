#!/usr/bin/env bash
# Is anything that mergecore is built from, or installed with, known to be unsafe, or under other terms than it may be? `make audit`.
#
# A list of advisories that cannot be reached is no clean bill: it is said in one line, and the exit status is 1. On a network that has
# none, MERGECORE_AUDIT_OFFLINE=1 checks the rest, and still says what it left out. The tools are installed into .tools, once.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0 unchecked=0
said=$(mktemp)
trap 'rm -f "$said"' EXIT

tell() { printf '%-44s %s\n' "$1" "$2"; }
fail() { cat "$said"; tell "$1" "FAILED"; failed=1; }
leave_out() { tell "$1" "not checked: $2"; unchecked=1; }

deny=$(command -v cargo-deny || echo .tools/bin/cargo-deny)
if [ ! -x "$deny" ]; then
  echo "installing cargo-deny, which takes some minutes"
  cargo install --quiet --locked --root .tools cargo-deny || exit 1
fi
if [ ! -x .tools/pip-audit/bin/pip-audit ]; then
  python3 -m venv .tools/pip-audit && .tools/pip-audit/bin/python -m pip install --quiet pip-audit || exit 1
fi

what="licences, versions and origins of crates"
if "$deny" --log-level warn check licenses bans sources >"$said" 2>&1; then
  tell "$what" "ok ($(grep -c '^warning\[duplicate\]' "$said") crates in several versions)"
else
  fail "$what"
fi

what="advisories of crates"
if "$deny" --log-level warn check advisories >"$said" 2>&1; then
  tell "$what" "ok"
elif grep -q 'failed to fetch advisory database' "$said"; then
  leave_out "$what" "RustSec's database cannot be reached"
else
  fail "$what"
fi

# Of what everybody gets with mergecore, as resolved for a fresh environment; the extras are worlds of their own. --strict: a package that
# could not be looked up is a failure, where by itself pip-audit would pass it over.
what="advisories of Python packages"
found=no
for service in pypi osv; do
  if .tools/pip-audit/bin/pip-audit --strict --progress-spinner off --vulnerability-service "$service" . >"$said" 2>&1; then
    tell "$what" "ok ($service)"
    found=yes
    break
  elif ! grep -qE 'could not be audited|ConnectionError|ConnectionTimeout|ServiceError|Max retries' "$said"; then
    fail "$what"
    found=yes
    break
  fi
done
[ $found = yes ] || leave_out "$what" "neither PyPI's advisories nor OSV's can be reached"

[ "${MERGECORE_AUDIT_OFFLINE:-}" = 1 ] && unchecked=0
exit $((failed | unchecked))
