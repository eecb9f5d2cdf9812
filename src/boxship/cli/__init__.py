"""The `boxship` command: one file a command; talks HTTP only."""
