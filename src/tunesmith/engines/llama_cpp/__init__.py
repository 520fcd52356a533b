"""llama.cpp behind the same seam as the other engines, for GGUF files."""
