#!/usr/bin/env bash
# The library on a GPU, in four minutes: is what it computes there what it computes on the CPU, how
# fast are PyTorch's own cells, and how fast does the main job learn. Prints JSON lines and a table.
#
#   bash benchmarks/gpu.sh                          # on the first GPU
#   ELMAN_GPU_DEVICE=cpu bash benchmarks/gpu.sh     # the same, small, without one
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
PYTHON="${PYTHON:-python3}"
[ -x .venv/bin/python ] && PYTHON=.venv/bin/python
exec "$PYTHON" benchmarks/gpu_first_contact.py "$@"
