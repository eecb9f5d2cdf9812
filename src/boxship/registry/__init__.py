"""Stops 3 and 4: push, pull, and the repositories that we serve."""
