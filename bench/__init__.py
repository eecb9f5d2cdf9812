"""Boxship beside dockerd and podman: the same work, interleaved in one run, medians as ratios.

`python -m bench --help` says how; `README.md` beside this file holds the last table.
"""
