"""Cache of the features of frozen layers."""
