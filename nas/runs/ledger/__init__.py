"""What was trained to be used and what was handed in, as rows beside the study's trials; the files themselves stay the truth."""

from nas.runs.ledger.book import Ledger, read_ledger, record, rewrite
from nas.runs.ledger.entries import RunEntry, SubmissionEntry, append_submission, kept_submissions

__all__ = [
    "Ledger",
    "RunEntry",
    "SubmissionEntry",
    "append_submission",
    "kept_submissions",
    "read_ledger",
    "record",
    "rewrite",
]
