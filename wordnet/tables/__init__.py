"""WordNet's nouns as arrays: how they are built and read, sets and orders of classes, base forms, spelling."""
