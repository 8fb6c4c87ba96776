"""What calibration data says of a graph: moments of the operands of learned contractions, gradients of masks."""
