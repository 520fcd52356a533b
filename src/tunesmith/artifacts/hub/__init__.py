"""The Hugging Face hub, or a mirror of it: how it is asked, and its data sets as stores to read from."""
