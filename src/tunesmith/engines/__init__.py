"""What generates: engines behind one small seam, and loading models for them."""
