"""Who else gets the figures of a run, besides its own folder: TensorBoard, MLflow, Weights & Biases.

Each is one file with one class, and each runs in a thread of its own (background.py), so that a dead disk or server
costs the training nothing but those records.
"""
