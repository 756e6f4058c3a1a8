"""Pages and plots for people: HTML and SVG without any library."""
