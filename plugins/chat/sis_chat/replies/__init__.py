"""Replies: how a model writes what it thinks, says and calls, and the way back from its text."""
