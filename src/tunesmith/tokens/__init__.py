"""Chat templates, tokens, labels, cutting: one rendering for training, preview, chat and sampling."""
