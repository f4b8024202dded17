#!/usr/bin/env bash
# Writes requirements/*.txt from requirements/*.in. Arguments go to uv: `scripts/compile_locks.sh --upgrade`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export UV_PYTHON_DOWNLOADS=never UV_CUSTOM_COMPILE_COMMAND="make locks"
uv="$(find_uv "$(find_python 3.12)")"
cd "$root/requirements"
lock() { # lock PYTHON RESULT SOURCE...
    local version="$1" result="$2"
    shift 2
    "$uv" pip compile --quiet --no-emit-index-url --no-emit-find-links --python-version "$version" --output-file "$result" "$@"
}
everything=(robot.in train.in ros.in dev.in)
lock 3.10 robot.txt --universal robot.in "$@"
lock 3.12 dev.txt --universal "${everything[@]}" "$@"
lock 3.10 system_ros_py310.txt --universal "${everything[@]}" system_ros.in "$@"
lock 3.12 system_ros_py312.txt --universal "${everything[@]}" system_ros.in "$@"
lock 3.10 jammy.txt jammy.in "$@"
for version in 10.3 10.13 11.4; do      # with hashes: they come from nobody's distribution
    lock 3.10 "tensorrt/$version.txt" --no-deps --generate-hashes "tensorrt/$version.in" "$@"
done
