"""Chat templates, tokens, labels and cutting to length: one rendering for training, preview, chat and sampling."""
