"""What labelling tools and people really write, by format and kind of oddity, through every command."""
