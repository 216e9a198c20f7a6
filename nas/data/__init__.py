"""Images: from wherever they lie to normalised batches on the device.

datasets (by name) → folders and tables, or downloads → decoding, fitting (their pixels) → cache (kept on the disk) → images (what
a data set is) → splits (which train, choose and judge) → loader, stream (on the device) → augment, ahead (a batch).
Beside that way: unlabelled (test sets as they are handed out), shift (images as another camera would have given them).
"""
