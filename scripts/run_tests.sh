#!/usr/bin/env bash
# Runs pytest; arguments go to it. Without any: every test for ROS_DISTRO, those without ROS 2 side by side on all cores, then
# those that talk over ROS 2 one after the other, because each of them starts processes that want the machine to themselves.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

run() { "$root/scripts/with_ros.sh" python -m pytest "$@"; }

wanted="not slow"
[ "$ros_distro" != humble ] || wanted="ros and not slow and not once"
if [ $# -gt 0 ]; then
    run -m "$wanted" "$@"
    exit
fi
status=0
if [ "$ros_distro" != humble ]; then
    workers="$(nproc)"
    [ "$workers" -le 8 ] || workers=8
    OMP_NUM_THREADS=1 run -m "$wanted and not ros" -n "$workers" --dist loadfile || status=$?
    wanted="$wanted and ros"
fi
run -m "$wanted" || status=$?
exit "$status"
