"""The page that shows readings: its API, cache, tiles, server, notebook widget, and the single file."""
