"""WordNet's nouns as arrays: building and reading them, sets and orders of classes, base forms, spelling."""
