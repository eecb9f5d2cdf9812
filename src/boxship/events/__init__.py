"""Publish and subscribe: what happened to which object, with a bounded history."""
