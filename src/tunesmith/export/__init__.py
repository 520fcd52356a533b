"""Other forms of a trained model (merged weights, GGUF, the hub), and the proof that each is that model."""
