"""Stop 5: layers made mountable (EROFS over the tar, or directories) and writable snapshots over them."""
