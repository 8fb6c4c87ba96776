"""How each detector class is traced: one function stands in for its forward."""
