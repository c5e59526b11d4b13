"""imgtool: raw ImageNet to shards, shards to classifiers, and the synset hierarchy between them.

imgtool prepare --src ILSVRC2012 --out data/imagenet
imgtool train --size n --data data/imagenet
from imgtool import Classifier, wordnet
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgtool.training.classifier import Classifier

__version__ = "0.1.0"
__all__ = ["Classifier", "__version__"]


def __getattr__(name: str) -> Any:
    # Classifier brings torch, seconds of it: only those who ask for it pay.
    if name == "Classifier":
        from imgtool.training.classifier import Classifier

        return Classifier
    raise AttributeError(f"module 'imgtool' has no attribute {name!r}")
