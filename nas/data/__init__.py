"""Images: from wherever they lie to normalised batches on the device."""
