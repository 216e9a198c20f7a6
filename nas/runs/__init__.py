"""What is trained after a search: chosen networks (`retrain`), variants of one (`ablate`), and known networks (`baseline`).

Each of their runs is a job, as `plan` works it out, and `train` trains it over workers. `finish` then takes the network from the
checkpoint, judges it, and writes its weights and its card; `select` finds what was trained. The official test set is opened once,
for what images that were held out have chosen.
"""
