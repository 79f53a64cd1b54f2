"""Reader and writer of LabelMe JSON and XML."""
