"""Trained models in the forms that other programs run: one module a format, its writer and its reader side by side."""
