"""A GitOps reconciler for TensorFlow Serving."""

__version__ = "0.1.0"
