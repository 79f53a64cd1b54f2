"""Starting weights: loading, checks and class transfer."""
