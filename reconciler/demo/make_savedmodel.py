"""Makes the tiny SavedModel beside this file: y = x + 12345, with one variable.

Run once, with TensorFlow installed: `python -m reconciler.demo.make_savedmodel`. What it made is
kept in the repository (11 kB), so that the demo needs no TensorFlow; models.py turns the constant
into another one for each model and version.
"""

from pathlib import Path
from typing import Any

CONSTANT = 12345.0


def make_savedmodel(folder: Path) -> None:
    """Write the SavedModel to `folder`."""
    import tensorflow as tf

    class Adder(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="adder")
            self.offset = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def add(self, x: Any) -> dict[str, Any]:
            return {"y": x + tf.constant(CONSTANT) + self.offset}

    adder = Adder()
    tf.saved_model.save(adder, str(folder), signatures={"serving_default": adder.add})


if __name__ == "__main__":
    make_savedmodel(Path(__file__).parent / "savedmodel")
