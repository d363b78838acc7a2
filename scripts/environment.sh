# Sourced by the other scripts: a virtual environment in .venv with this project in it. CALIB_EXTRAS names the extras.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Python compiles what it imports, once; pip would compile every file of every package, which takes longer than installing.
unset PYTHONDONTWRITEBYTECODE
export PIP_COMPILE=0
if [ ! -x .venv/bin/python ]; then
  for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      "$candidate" -m venv --upgrade-deps .venv && break # an old pip takes three times as long to look for packages
    fi
  done
fi
if [ ! -x .venv/bin/python ]; then
  echo "expected Python 3.10 to 3.13 with the venv module on PATH, found none; install one" >&2
  exit 1
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${CALIB_EXTRAS:+[$CALIB_EXTRAS]}"
