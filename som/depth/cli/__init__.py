"""The commands of run_depth.py."""
