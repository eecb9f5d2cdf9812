"""The child's side of a start: from the clone to the exec, inside the new namespaces."""
