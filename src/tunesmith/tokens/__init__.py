"""Chat templates, tokens, labels, truncation: one rendering for training, preview, chat and sampling."""
