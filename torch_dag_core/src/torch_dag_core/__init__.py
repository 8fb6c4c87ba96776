"""torch-dag core."""
