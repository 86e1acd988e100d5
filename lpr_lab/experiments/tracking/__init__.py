"""Logs training metrics to TensorBoard, Trackio, W&B or MLflow, beside the run directory.

`trackers` is the list of them, and opens each; `log` writes to those that were selected.
"""
