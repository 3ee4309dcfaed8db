"""The documentation as a site: `python -m docs_site` makes it, in ./site.

The pages are those of docs/, and the references, which are made here from the program itself.
"""
