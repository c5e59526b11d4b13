"""What a data set states beside its images: the development kit, labels of flat folders, boxes, ReaL."""
