"""Dialogues written by models behind endpoints: requests, their cost, and the replies."""
