"""Imported by processes that only encode text, before anything else: they do without torch."""

from tunesmith.tokens.light_imports import auto_tokenizer, leave_out_torch

leave_out_torch()
auto_tokenizer()
