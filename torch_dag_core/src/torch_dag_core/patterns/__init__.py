"""Finding structure in a graph: small patterns, with rewrites of them, and regions such as residual blocks."""
