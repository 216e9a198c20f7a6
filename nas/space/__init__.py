"""A search space: what is drawn, how its YAML file is read, how widths fill a budget, and whether anything fits."""
