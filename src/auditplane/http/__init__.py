"""The HTTP edge: parses requests, asks `log` and `access`, and streams answers.

The only module that knows of HTTP, and the only one that is async: work is handed to threads.
"""
