"""Where a journal keeps its rows."""
