#!/usr/bin/env bash
# Makes the Python environment, or finds that it is already right (which takes well under a second).
#
#   scripts/setup_env.sh            robot, training, test and ROS tools in .venv (.venv-<distro> with a ROS in /opt/ros)
#   scripts/setup_env.sh jammy      Ubuntu 22.04's NumPy and OpenCV on Python 3.10 in .venv310; exits 3 without such a Python
#
# It may be interrupted at any time: the stamp that says "done" is written last, and the next run puts right what is half done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export UV_PYTHON_DOWNLOADS=never      # uv's own interpreters come from a host that is not reachable everywhere
export UV_LINK_MODE="${UV_LINK_MODE:-}"
[ -n "$UV_LINK_MODE" ] || unset UV_LINK_MODE
unset VIRTUAL_ENV PYTHONPATH PYTHONHOME

what="${1:-all}"
options=()
note=""
case "$what" in
    all)
        note=": the first time fetches a few GB and takes minutes"
        if [ "$ros_kind" = system ]; then
            python="${SIAM_TRACKER_PYTHON:-/usr/bin/python3}"
            "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "$python does not run, or is older than 3.10."
            version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
            case "$version" in
                3.10 | 3.11) locks=(requirements/system_ros_py310.txt) ;;
                *) locks=(requirements/system_ros_py312.txt) ;;
            esac
            options=(--system-site-packages)
        else
            python="$(find_python 3.12)" || die "Python 3.12 was not found. Install it (Ubuntu 24.04: apt install python3.12-venv;" \
                "elsewhere: pyenv install 3.12), or set SIAM_TRACKER_PYTHON to one."
            locks=(requirements/dev.txt requirements/ros_wheel.txt)
        fi
        ;;
    jammy)
        venv="$root/.venv310"
        python="$(find_python 3.10)" || exit 3
        locks=(requirements/jammy.txt)
        ;;
    *) die "unknown environment '$what': it is nothing, or 'jammy'." ;;
esac

cd "$root"
stamp="$venv/.siam_tracker_stamp"
wanted="$({ printf '%s\n' "$python" "$venv" "${options[@]}"; "$python" -VV; cat "${locks[@]}" setup.py scripts/setup_env.sh; } | sha256sum)"
is_right() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x "$venv/bin/python" ]; }

is_right && exit 0
only_one "$root/.ros/$(basename "$venv").lock"
is_right && exit 0                    # another process was faster

say "setting up ${venv#"$root/"} with $("$python" -V) ($python)$note"
rm -f "$stamp"
uv="$(find_uv "$python")"
if ! "$venv/bin/python" -c pass 2>/dev/null || [ "$("$venv/bin/python" -VV)" != "$("$python" -VV)" ]; then
    rm -rf "$venv"
    "$uv" venv --quiet "${options[@]}" --python "$python" "$venv"
fi
lock_options=()
for lock in "${locks[@]}"; do lock_options+=("$lock"); done
"$uv" pip sync --quiet --python "$venv/bin/python" "${lock_options[@]}"
if [ "$what" = all ]; then
    # The package itself, from its sources: `siam-tracker` and `import siam_tracker_ros` without ROS around them.
    "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
fi
printf '%s\n' "$wanted" >"$stamp.new"
mv "$stamp.new" "$stamp"
say "ready: ${venv#"$root/"}"
