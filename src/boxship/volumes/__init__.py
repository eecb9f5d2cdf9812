"""Named volumes and the local driver."""
