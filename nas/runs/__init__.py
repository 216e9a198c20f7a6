"""What is trained after a search: chosen networks (`retrain`), variants of one (`ablate`), and known networks (`baseline`).

Each run is a job: `plan` works it out, and `train` trains it in workers. `finish` takes the network from the checkpoint,
evaluates it, and writes its weights and its card; `select` finds what was trained. The official test set is evaluated once, after
held-out images have chosen a network.
"""
