"""Networks, their losses and FLOPs: YOLOv8-cls, other libraries' networks, a trained model."""
