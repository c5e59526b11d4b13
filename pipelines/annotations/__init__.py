"""Annotations that come with a data set's images: development kit, validation labels, bounding boxes, ReaL labels."""
