"""Sessions in a store that servers share: what a store must do, and the stores that do it."""
