"""State in memory with SQLite as its journal: one writer thread, one transaction a change."""
