#!/usr/bin/env bash
# Environment, install, and all tests that need no GPU, on up to four processors. Arguments go to pytest.
set -euo pipefail
CALIB_EXTRAS=dev
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest -p tests.compiled_once -m "not gpu" --numprocesses auto --maxprocesses 4 --dist worksteal "$@"
