"""The graph of synsets: nodes, keys, relations between synsets, class queries, label maps, drawings."""
