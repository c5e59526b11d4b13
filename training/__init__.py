"""Models, recipes, the loop, evaluation and checkpoints."""
