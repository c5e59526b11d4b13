"""ImageNet's classes: the class table, published lists of class names, published subsets, superclasses."""
