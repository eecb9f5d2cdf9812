"""Stop 2 of the data's way: blobs by digest; ingest, commit, read."""
