"""The op vocabulary: modules whose constants are declared, one class for each thing a graph can do."""
