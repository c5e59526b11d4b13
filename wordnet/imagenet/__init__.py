"""ImageNet's classes: the class table, names given elsewhere, published subsets, superclasses."""
