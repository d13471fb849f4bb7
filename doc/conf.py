"""Sphinx: the documentation of Kodiak as HTML (tox -e docs)."""
project = 'Kodiak'
copyright = 'the Kodiak authors'
extensions = []
root_doc = 'index'
exclude_patterns = ['build']
html_theme = 'alabaster'
