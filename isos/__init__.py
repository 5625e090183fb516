"""The guests that machines run."""
