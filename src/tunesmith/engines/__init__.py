"""Generation: engines behind one small interface, and loading models for them."""
