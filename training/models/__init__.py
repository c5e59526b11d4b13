"""Networks and their losses: YOLOv8-cls, other libraries' networks, a trained model."""
