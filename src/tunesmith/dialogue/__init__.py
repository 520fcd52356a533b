"""Dialogues written by models behind endpoints: what may be asked, what it costs, and what came back."""
