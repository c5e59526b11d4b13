"""Checkpoints: imgtool's own, Ultralytics', and a safe reader of foreign torch files."""
