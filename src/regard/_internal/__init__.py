"""Private helpers: atomic files, progress bars, plotting, measuring, wording."""
