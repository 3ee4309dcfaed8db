"""Settings of Sphinx, which reads this file."""

from auditplane import __version__

project = "Auditplane"
author = "the authors of Auditplane"
version = release = __version__

extensions = ["myst_parser"]
# Links such as page.md#heading, by the anchors that GitHub gives.
myst_heading_anchors = 4
highlight_language = "text"
smartquotes = False  # Text such as rel="next" stays as it is.

html_theme = "furo"
html_title = f"Auditplane {__version__}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_show_copyright = False
