"""The ROS 2 nodes: the only room that imports ROS, and only in the modules that need it.

What decides (parameters, encodings, selections, the worker) is free of ROS, so that it can be
tested without a graph.
"""
