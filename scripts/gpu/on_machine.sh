#!/usr/bin/env bash
# On the GPU machine, from the repository's root (see docs/gpu.md). Needs bash, python3, xz and tar; nothing is fetched.
#
#   on_machine.sh receive FOLDER      keep one sent folder
#   on_machine.sh unpack              check everything, unpack kit, prepared folder and wheels
#   on_machine.sh run MINUTES [ARG..] the program, under the kit's Python; results in $OUT
#   on_machine.sh python ARG...       the kit's Python, with this package, TensorRT and the wheels
#
#   GPU_WORK        where everything is kept between calls (default /tmp/siam_tracker_gpu)
#   TORCH_PYTHON    a Python with torch; run times the same networks in it (default: none)
#   OUT             where results go (default GPU_WORK/results)
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)"
work="${GPU_WORK:-/tmp/siam_tracker_gpu}"
say() { printf '%s\n' "$*" >&2; }
die() { say "on_machine.sh: $*"; exit 2; }

receive() {
    [ -d "$1" ] || die "no folder $1"
    mkdir -p -m 700 "$work/parts"
    cp "$1"/* "$work/parts/"
    say "here: $(ls "$work/parts" | tr '\n' ' ')"
}

unpack() {
    [ -f "$work/parts/parts.json" ] || die "parts.json has not come: it is in the first folder"
    (cd "$work/parts" && python3 - <<'PY'
import hashlib, json, os, sys
bad = []
for part in json.load(open("parts.json")):
    name = part["name"]
    if not os.path.exists(name):
        bad.append(f"{name} is missing (folder {part['folder']})")
    elif hashlib.sha256(open(name, "rb").read()).hexdigest() != part["sha256"]:
        bad.append(f"{name} is damaged (folder {part['folder']})")
sys.exit("on_machine.sh: " + "; ".join(bad) if bad else 0)
PY
    )
    rm -rf "$work/extras" "$work/kit"
    mkdir -p "$work/extras"
    cat "$work"/parts/extras.* | xz -dc | tar -xf - -C "$work/extras" &
    extras=$!
    [ ! -f "$work/parts/manifest.json" ] || python3 "$work/parts/unpack.py" "$work/parts" "$work/kit"
    wait "$extras" || die "the extras cannot be unpacked"
    say "unpacked into $work"
}

# OpenCV's stand-in comes last: it counts only where the wheels brought none.
paths() { printf '%s' "$root:$work/extras/site:$root/scripts/gpu/without_opencv"; }

with_kit() {
    [ -x "$work/kit/run.sh" ] || die "no kit in $work/kit: run unpack first"
    export PYTHONHOME="$work/kit/py" PYTHONPATH="$(paths):$work/kit/trt" PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1
    export PYTHONUNBUFFERED=1 CUDA_MODULE_LOADING=LAZY
    export LD_LIBRARY_PATH="$work/kit/py/lib:$work/kit/lib:$work/kit/trt/tensorrt${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    exec "$work/kit/py/bin/python3.10" "$@"
}

run() {
    local minutes="$1"
    shift
    local torch=()
    if [ -n "${TORCH_PYTHON:-}" ]; then
        # The kit's home and libraries are for the kit's Python alone.
        printf '#!/usr/bin/env bash\nunset PYTHONHOME\nexport PYTHONPATH=%q LD_LIBRARY_PATH=%q\nexec %q "$@"\n' \
            "$(paths)" "${LD_LIBRARY_PATH:-}" "$TORCH_PYTHON" >"$work/torch_python"
        chmod 700 "$work/torch_python"
        torch=(--torch-python "$work/torch_python")
    fi
    with_kit -m siam_tracker_ros.evaluation.gpu_benchmark "$work/extras/prepared" \
        --out "${OUT:-$work/results}" --work "$work/work" --minutes "$minutes" "${torch[@]}" "$@"
}

verb="${1:-}"
[ $# -gt 0 ] && shift
case "$verb" in
    receive) receive "${1:?a folder}" ;;
    unpack) unpack ;;
    run) run "${1:?minutes}" "${@:2}" ;;
    python) with_kit "$@" ;;
    *) die "receive FOLDER, unpack, run MINUTES or python ARGUMENT... is wanted, got '$verb'" ;;
esac
