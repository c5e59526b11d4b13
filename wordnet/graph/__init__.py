"""The graph of synsets: its nodes and keys, relations of pairs, queries, label maps, drawings."""
