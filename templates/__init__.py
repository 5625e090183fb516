"""The jinja2 templates."""
