"""Checkpoints: imgtool's, Ultralytics', and the safe reader of foreign files."""
