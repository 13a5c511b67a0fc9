"""The access profile: every request of the processes of a run, recorded, read back, looked at and carried away."""
