"""Stop 1: a Dockerfile becomes a graph, the graph is solved, and the result is an image."""
