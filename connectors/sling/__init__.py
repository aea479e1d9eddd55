"""Sling as a reader: a child process that streams Arrow batches through a pipe."""
