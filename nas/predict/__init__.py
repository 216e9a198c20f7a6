"""What a retrained network says of images without labels."""

from nas.predict.single import Guess, PredictRequest, predict_images
from nas.predict.submission import Submission, SubmitRequest, submit

__all__ = ["Guess", "PredictRequest", "Submission", "SubmitRequest", "predict_images", "submit"]
