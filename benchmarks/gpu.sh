#!/usr/bin/env bash
# GRPO steps on one GPU, without a network, in at most 8 minutes. What is measured:
# python -m benchmarks.gpu --help
#
#   benchmarks/gpu.sh carry      here, with a network: downloads into .whl/ what the machine lacks
#   benchmarks/gpu.sh            there, in a copy of this folder with .whl/
#   benchmarks/gpu.sh --reduced  every path of it on a CPU, in seconds
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SECONDS=0
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 LANGSMITH_TRACING=false TQDM_DISABLE=1

if [ "${1:-}" = carry ]; then
  exec "$python" -m benchmarks.gpu_wheels
fi
if [ ! -x .venv/bin/python ] && wheels=(.whl/*.whl) && [ -e "${wheels[0]}" ]; then
  packages=$(mktemp -d)
  trap 'rm -r "$packages"' EXIT
  # Into a folder of their own: the machine's packages stay as they are.
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$packages" \
    "${wheels[@]}"
  export PYTHONPATH="$PYTHONPATH:$packages"
  echo "${#wheels[@]} carried packages, installed in $SECONDS s"
fi
"$python" -m benchmarks.gpu --seconds $((460 - SECONDS)) "$@"
