"""Finding shapes in a graph: small patterns with the rewrites of them, and whole regions by dominance."""
