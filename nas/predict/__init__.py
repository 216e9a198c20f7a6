"""What a retrained network says of images without labels."""

from nas.predict.single import Guess, predict_images
from nas.predict.submission import Submission, submit

__all__ = ["Guess", "Submission", "predict_images", "submit"]
