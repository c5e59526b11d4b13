"""Native and exported models behind one interface: uint8 images → logits."""
