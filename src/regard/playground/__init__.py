"""The page without Python: models as files that run in a browser, and the static site that shows them."""
