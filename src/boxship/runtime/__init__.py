"""Stop 6: the OCI runtime and the keeper, which starts, holds and reaps containers."""
