"""The front doors: wire to domain and back, no logic."""
