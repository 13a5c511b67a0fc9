"""What a run's I/O was: the data model with its JSON form and merging, and the text made from it."""
