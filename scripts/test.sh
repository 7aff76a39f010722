#!/bin/bash
# npm test: set-up, types, lint and format, import directions, then all tests in sandboxes.
#
#   npm test                     everything but test/**/*.long.test.ts
#   npm test -- --long           those too
#   npm test -- test/log/*.ts    only these files, without the checks before them
#
# SLIPWAY_TEST_ENGINE=dockerd drives the client stories against Debian's dockerd instead.
set -eu
. "$(dirname "$0")/setup.sh"
need_root "$@"
bring test "${engine_packages[@]}" "${test_packages[@]}"
peers=test
[ "${SLIPWAY_TEST_ENGINE-}" != dockerd ] || peers=bench
"$here/scripts/peers.sh" "$peers"
"$here/scripts/services.sh"
export PATH=$PATH:$cache/peers/usr/bin
cd "$here"

started=$SECONDS
long=no
files=()
for argument in "$@"; do
  case $argument in
  --long) long=yes ;;
  *) files+=("$argument") ;;
  esac
done

if [ ${#files[@]} -eq 0 ]; then
  node_modules/.bin/tsc || die 'npm test: types FAILED'
  node_modules/.bin/biome check --error-on-warnings src test bench scripts || die 'npm test: lint and format FAILED'
  node scripts/check-imports.ts || die 'npm test: import directions FAILED'
  mapfile -t files < <(find test -name '*.test.ts' | sort)
  if [ "$long" = no ]; then
    mapfile -t files < <(printf '%s\n' "${files[@]}" | grep -v '\.long\.test\.ts$')
  fi
fi

code=0
node scripts/run-tests.ts "${files[@]}" || code=$?
echo "npm test: $([ "$code" -eq 0 ] && echo passed || echo FAILED) in $((SECONDS - started)) s"
exit "$code"
