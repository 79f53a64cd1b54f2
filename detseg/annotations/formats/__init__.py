"""One small file for each way in which labelled images are written down: readers and writers, all to the same table."""
