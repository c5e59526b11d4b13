"""Tasks made from the hierarchy: trees, and superclasses split into subpopulations."""
