#!/usr/bin/env bash
# Runs pytest; arguments go to it. Without any: every test for ROS_DISTRO, side by side. Those without ROS 2 take all cores; those that
# talk over ROS 2 mostly wait, but each starts processes: two at a time, in ROS domains of their own.
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
run -m "$wanted" -n 2 --dist loadfile || status=$?
exit "$status"
