#!/usr/bin/env bash
# Environment, install, and the main job on the embedded sample. Usage: bash scripts/demo.sh [NEW_FOLDER]
set -euo pipefail
folder=$(realpath -m "${1:-calib-demo}")
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if [ $# -eq 0 ]; then rm -rf "$folder"; fi
calib=$PWD/.venv/bin/calib
"$calib" demo "$folder"
cd "$folder"
"$calib" run --data imgs/ --algo entropy
echo "$folder/calib-out/report.html"
