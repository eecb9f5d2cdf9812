"""Stop 6: the life of a container, from its configuration to its removal."""
