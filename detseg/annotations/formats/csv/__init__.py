"""Reader and writer of CSV lists of boxes, landmarks and labels."""
