"""The control API of a running demo, and the page that shows it."""
