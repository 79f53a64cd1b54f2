"""Starting weights: loading, checking and class transfer."""
