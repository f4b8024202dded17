#!/usr/bin/env bash
# Sets up the checks against real TensorRT that need no GPU, in .tools/tensorrt_check; about 150 MB from the package index.
#
#   11.4     bindings of TensorRT 11.4 on TensorRT-RTX 1.7.1: parses and compiles graphs
#   10.3, 10.13   bindings alone: what they call things
#
# These packages are NVIDIA's, under NVIDIA's licence agreements: see docs/quantisation.md before you run it. Nothing of
# them goes into the repository. Fails, and changes nothing, where they cannot be had.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export UV_PYTHON_DOWNLOADS=never
unset VIRTUAL_ENV PYTHONPATH PYTHONHOME

[ "$(uname -sm)" = "Linux x86_64" ] || die "the check needs Linux on x86-64."
for tool in gcc nm readelf; do
    command -v "$tool" >/dev/null || die "$tool is missing (Ubuntu: apt install gcc binutils)."
done
python="$venv/bin/python"
[ -x "$python" ] || die "there is no environment yet: make setup."
folder="$root/.tools/tensorrt_check"
wanted="$({ "$python" -VV; cat "$root"/requirements/tensorrt/*.txt "$root"/scripts/*tensorrt*; } | sha256sum)"
is_right() { [ -f "$folder/stamp" ] && [ "$(cat "$folder/stamp")" = "$wanted" ]; }

is_right && exit 0
only_one "$root/.ros/tensorrt_check.lock"
is_right && exit 0
uv="$(find_uv "$python")"
mkdir -p "$root/.tools"
new="$(mktemp -d "$root/.tools/tensorrt_check.XXXXXX")"
trap 'rm -rf "$new"' EXIT
say "setting up the TensorRT check in .tools/tensorrt_check"
for list in "$root"/requirements/tensorrt/*.txt; do
    version="$(basename "$list" .txt)"
    "$uv" pip install --quiet --python "$python" --target "$new/$version" --no-deps --require-hashes --requirement "$list" \
        || die "the packages of TensorRT $version could not be had."
    "$python" "$root/scripts/tensorrt_stand_ins.py" "$new/$version"
done
printf '%s\n' "$wanted" > "$new/stamp"
chmod 755 "$new"
rm -rf "$folder"
mv "$new" "$folder"
