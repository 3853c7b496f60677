"""Pages: one self-contained HTML file each, complete without JavaScript and without any request."""
