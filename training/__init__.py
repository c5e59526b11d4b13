"""Training: models, recipes, checkpoints, the loop, evaluation and export."""
