"""Which replies are right, and drawing them."""
