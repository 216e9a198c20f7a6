"""Images: from wherever they lie to normalised batches on the device.

datasets (by name) → formats (folders, tables, …) → containers (decoding into the cache) → images (what a data set is) → splits
(which train, and which validate) → loader, stream (on the device) → augment (a batch). Beside that way: unlabelled (test sets
without labels), shift (images as another camera would have given them).
"""
