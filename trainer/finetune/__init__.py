"""Fine-tuning: a new run whose weights start from those of a run, a checkpoint or a generator file."""
