#!/usr/bin/env bash
# Runs a command in the ROS 2 environment of $ROS_DISTRO (default jazzy), with this package built and visible to it.
#
#   scripts/with_ros.sh ros2 run siam_tracker_ros tracker_node
#   scripts/with_ros.sh ros2 launch siam_tracker_ros tracker.launch.py image:=/camera/image_raw
#   ROS_DISTRO=humble scripts/with_ros.sh python -m pytest -m ros
#
# The package is built by colcon into .ros/<distro>, linked to the sources, and only when something asks for it: files added
# to or removed from launch/, config/ and models/, entry points, metadata. Nodes of other machines are neither seen nor disturbed.
set -eo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -gt 0 ] || die "usage: scripts/with_ros.sh COMMAND [ARGUMENT...]"
[ -f "$venv/.siam_tracker_stamp" ] || die "the environment is not there yet: run 'make setup' (with the same ROS_DISTRO)."

prepend() { # prepend VARIABLE VALUE
    export "$1=$2${!1:+:${!1}}"
}

if [ "$ros_kind" = system ]; then
    # shellcheck disable=SC1091
    source "$ros_prefix/setup.bash"
    prepend PATH "$venv/bin"
else
    packages="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    wheel="$packages/isaacsim/exts/isaacsim.ros2.core/$ros_distro"
    [ -d "$wheel/rclpy" ] || die "ROS 2 $ros_distro is not in $wheel: run 'make clean setup'."
    # Replaced, not extended: what another sourced ROS left there does not fit this one.
    export AMENT_PREFIX_PATH="$wheel" PYTHONPATH="$wheel/rclpy" LD_LIBRARY_PATH="$wheel/lib"
    export ROS_DISTRO="$ros_distro" ROS_VERSION=2 ROS_PYTHON_VERSION=3
    export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
    unset COLCON_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_CURRENT_PREFIX
    prepend PATH "$root/scripts/wheel_bin"
    prepend PATH "$venv/bin"
fi
export VIRTUAL_ENV="$venv"
unset PYTHONHOME

# Stay on this machine.
if [ "$ros_distro" = humble ]; then
    export ROS_LOCALHOST_ONLY="${ROS_LOCALHOST_ONLY:-1}"
else
    export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
fi

# What the build depends on: metadata, and which files there are to install. Their contents, and all Python, are links.
build_state() {
    cd "$root"
    { printf '%s\n' "$venv" "$ros_prefix" "$ros_kind"
      cat setup.py setup.cfg package.xml
      for folder in launch config models resource; do
          [ ! -d "$folder" ] || find "$folder" -type f
      done | LC_ALL=C sort; } | sha256sum
}
built="$ros_build/built"
up_to_date() { [ -f "$built" ] && [ "$(cat "$built")" = "$state" ]; }
state="$(build_state)"
if ! up_to_date; then
    (
        only_one "$ros_build/lock"
        up_to_date && exit 0
        touch "$root/.ros/COLCON_IGNORE"
        rm -rf "$built" "$ros_build/build" "$ros_build/install"
        cd "$ros_build"
        colcon --log-base "$ros_build/log" build --paths "$root" --symlink-install \
            --build-base "$ros_build/build" --install-base "$ros_build/install" \
            --event-handlers console_cohesion+ desktop_notification- status- >"$ros_build/build.log" 2>&1 </dev/null \
            || { cat "$ros_build/build.log" >&2; die "colcon could not build the package for $ros_distro."; }
        printf '%s\n' "$state" >"$built"
    ) 9>&-
fi
# shellcheck disable=SC1091
source "$ros_build/install/local_setup.bash"
prepend PATH "$ros_build/install/siam_tracker_ros/lib/siam_tracker_ros"

exec "$@"
