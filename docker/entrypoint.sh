#!/usr/bin/env bash
# Runs a command with ROS and the package around it.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /ros2_ws/install/local_setup.bash
exec "$@"
