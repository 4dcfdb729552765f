#!/bin/sh
# Checks the Helm chart with Helm 3 and 4, Kubernetes' schemas, checkov and promtool; or writes the README's table of values anew.
#
#   scripts/chart.sh [check [TEST...] | table]     TEST: a file such as test_notes, or one test by its whole name
#
# Exits with 3 when a tool that it needs is not there.
set -eu

cd "$(dirname "$0")/.."
scripts/setup.sh chart promtool || exit 3

case ${1:-check} in
check)
    [ $# -eq 0 ] || shift
    export PYTHONPATH=deploy/helm/tests PYTHONDONTWRITEBYTECODE=1
    if [ $# -gt 0 ]; then
        exec .tools/chart/venv/bin/python -m unittest "$@"
    fi
    exec .tools/chart/venv/bin/python -m unittest discover -s deploy/helm/tests
    ;;
table)
    node .tools/chart/npm/node_modules/@bitnami/readme-generator-for-helm/bin/index.js \
        -v deploy/helm/ota/values.yaml -r deploy/helm/ota/README.md
    ;;
*) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
