"""Peers of the motion prior that work over time, each re-implemented from its paper."""
