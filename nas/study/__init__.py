"""A study: where it is stored, who owns it, what is drawn for it, and the search that fills it."""
