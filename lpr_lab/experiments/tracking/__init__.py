"""What is logged, handed on to TensorBoard, Trackio, W&B or MLflow.

Begin with `choice`, which trackers were asked for and are there; `outlets` writes to them.
"""
