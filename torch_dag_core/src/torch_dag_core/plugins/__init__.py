"""What plugins add and how they are found: hook specs, the records that hooks return, and the registry of them."""
