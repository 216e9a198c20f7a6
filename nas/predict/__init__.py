"""What a retrained network says of images without labels."""

from nas.predict.submission import Guess, Submission, predict_images, submit

__all__ = ["Guess", "Submission", "predict_images", "submit"]
