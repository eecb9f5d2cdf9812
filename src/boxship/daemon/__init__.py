"""Wiring: configuration to stores to services to servers."""
