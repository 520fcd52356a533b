"""Convert a whole model to one GGUF file, for llama.cpp and what is built on it."""
